"""The layout of the repository: only ``models/`` names a declared model or one of its columns."""

import re
import subprocess
from fnmatch import fnmatch
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

from watchkeeper.core.names import MODELS_GROUP
from watchkeeper.training.models import find

ROOT: Final = Path(__file__).resolve().parents[1]

# Files that may name a declared model: documentation for users, and the environment and locks that
# contain all packages.
EXCLUDED: Final = (
    "models/*",
    "docs/*",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "pyproject.toml",
    "*.lock",
)
# Columns whose names are ordinary words of prose and code.
ORDINARY_WORDS: Final = {
    "type": "a word of Python, SQL and JSON",
    "torque": "a quantity that tests of any machine may measure",
}


def declared_here() -> list[str]:
    """Return the models whose packages are in this repository."""
    packages = {path.parent.name for path in ROOT.glob("models/*/pyproject.toml")}
    found = entry_points(group=MODELS_GROUP)
    return sorted(entry.name for entry in found if entry.dist and entry.dist.name in packages)


def names_of(model: str) -> set[str]:
    """Return the model's name, its package's name, and the distinctive names of its columns."""
    declaration = find(model)
    columns = {*declaration.names, declaration.target} - set(ORDINARY_WORDS)
    return {model, model.replace("-", "_"), *columns}


def tracked_files() -> list[str]:
    """Return the files that git tracks and that exist, without the excluded ones."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [
        name
        for name in done.stdout.split("\0")
        if (ROOT / name).is_file() and not any(fnmatch(name, pattern) for pattern in EXCLUDED)
    ]


def test_every_package_in_models_declares_a_model() -> None:
    packages = {path.parent.name for path in ROOT.glob("models/*/pyproject.toml")}
    assert packages
    assert set(declared_here()) == packages


@pytest.mark.parametrize("model", declared_here())
def test_no_other_folder_names_a_model_or_its_columns(model: str) -> None:
    names = "|".join(sorted(map(re.escape, names_of(model)), key=len, reverse=True))
    word = re.compile(rf"(?<![\w-])(?:{names})(?![\w-])")
    found = []
    for name in tracked_files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or an archive
        for number, line in enumerate(text.splitlines(), start=1):
            if match := word.search(line):
                found.append(f"{name}:{number}: {match[0]}")
    assert not found, f"{len(found)} lines name {model} or a column of it:\n" + "\n".join(found)


def test_the_ordinary_words_are_columns() -> None:
    columns = {name for model in declared_here() for name in find(model).names}
    assert set(ORDINARY_WORDS) <= columns, "remove words that no model uses any more"


def test_every_test_that_the_documents_name_exists() -> None:
    named = {
        name: path.name
        for path in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"`(test_[a-z0-9_]+)`", path.read_text())
    }
    tests = "".join(
        (ROOT / name).read_text() for name in tracked_files() if Path(name).name.startswith("test_")
    )
    missing = {name: page for name, page in named.items() if f"def {name}(" not in tests}
    assert named
    assert not missing
