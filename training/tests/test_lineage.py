"""The code version in a lineage."""

import importlib.util
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pump_failure

from watchkeeper.training import lineage

ROOT = Path(__file__).parents[2]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def version_of(place: Path, package: Path | None = None) -> str:
    """Return the code version that a copy of the module in ``place`` finds."""
    place.mkdir(parents=True, exist_ok=True)
    copy = shutil.copy(lineage.__file__, place / "lineage.py")
    spec = importlib.util.spec_from_file_location("copied", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.code_version(package))


def test_the_code_version_is_the_commit_and_marks_changed_code(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    source = tmp_path / "training" / "src"
    version_of(source)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "answer.py").write_text("first")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    (tmp_path / "notes.txt").write_text("no code")
    assert version_of(source) == commit
    (tmp_path / "core" / "answer.py").write_text("second")
    assert version_of(source) == f"{commit}-dirty"
    git(tmp_path, "checkout", "-q", ".")
    (source / "a_new_model.py").write_text("")
    assert version_of(source) == f"{commit}-dirty"


def test_installed_code_has_the_version_of_its_package_also_in_another_checkout(
    tmp_path: Path,
) -> None:
    installed = metadata.version("watchkeeper-training")
    assert version_of(tmp_path / "site-packages") == installed
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.py").write_text("")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-q", "-m", "theirs")
    assert version_of(tmp_path / "site-packages") == installed


def test_a_changed_package_of_the_model_marks_the_code_version(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    source, package = tmp_path / "training" / "src", tmp_path / "models" / "pump" / "src" / "pump"
    version_of(source)
    package.mkdir(parents=True)
    (package / "model.py").write_text("first")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert version_of(source, package) == commit
    (package / "model.py").write_text("second")
    assert version_of(source, package) == f"{commit}-dirty"
    assert version_of(source, tmp_path.parent / "elsewhere") == commit, "not in the checkout"


def test_the_code_version_covers_every_project_that_a_run_executes() -> None:
    projects = {folder.removeprefix(":/") for folder in lineage.CODE}
    for project in projects:
        code = "".join(path.read_text() for path in (ROOT / project / "src").rglob("*.py"))
        imported = set(re.findall(r"^ *(?:from|import) watchkeeper\.(\w+)", code, re.MULTILINE))
        assert imported <= projects, project


def test_the_package_of_a_model_is_found_by_its_entry_point() -> None:
    assert lineage.package_folder("pump-failure") == Path(pump_failure.__file__).parent
    assert lineage.package_folder("valve-failure") is None
    assert lineage.dependencies("pump-failure")["declared-for-tests"] == "0"
