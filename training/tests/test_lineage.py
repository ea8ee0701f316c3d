"""The code version that a lineage names."""

import importlib.util
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from watchkeeper.training import lineage


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def version_of(place: Path) -> str:
    """Return the code version that this very code tells when it lies in ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    copy = shutil.copy(lineage.__file__, place / "lineage.py")
    spec = importlib.util.spec_from_file_location("copied", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.code_version())


def test_the_code_version_is_the_commit_and_tells_whether_the_code_differs(tmp_path: Path) -> None:
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


def test_installed_code_names_its_package_also_within_a_foreign_checkout(tmp_path: Path) -> None:
    installed = metadata.version("watchkeeper-training")
    assert version_of(tmp_path / "site-packages") == installed
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.py").write_text("")
    git(tmp_path, "add", "theirs.py")
    git(tmp_path, "commit", "-q", "-m", "theirs")
    assert version_of(tmp_path / "site-packages") == installed
