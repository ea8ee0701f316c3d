"""Write the files of a project from the templates beside this module."""

import shutil
import sys
import textwrap
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import msgspec

from watchkeeper.core.signature import Column
from watchkeeper.training import CannotTrainError
from watchkeeper.training.new.adopted import AdoptedVersion
from watchkeeper.training.new.decisions import Decisions, Kept
from watchkeeper.training.new.sql import without
from watchkeeper.training.new.tables import is_plain
from watchkeeper.training.table_file import quoted

WIDTH: Final = 100
# The template of each file, by its path in the project.
FILES: Final = {
    "pyproject.toml": "pyproject.toml",
    "src/{module}/__init__.py": "init.py",
    "src/{module}/py.typed": "",
    "src/{module}/model.py": "model.py",
    "tests/test_model.py": "test_model.py",
    "Dockerfile": "Dockerfile",
    ".dockerignore": "dockerignore",
    "values.yaml": "values.yaml",
    "README.md": "README.md",
}

ADOPTING: Final = {"model.py": "adopting.py"}  # instead, if the model adopts versions of MLflow


class Data(msgspec.Struct, frozen=True):
    """Where the rows of a model are.

    Attributes:
        table: The name of the table in the query.
        source: The ``source`` of ``pyproject.toml``: the name of the file in the project, or a URL
            without a password; "" if only ``WATCHKEEPER_SOURCE_URL`` says it.
        file: The file that is copied into the project.
        shown: Where the rows come from, for people.
    """

    table: str
    source: str
    file: Path | None
    shown: str


def module_of(name: str) -> str:
    """Return the name of the Python package of a model.

    Raises:
        CannotTrainError: it would hide a module of Python.
    """
    module = name.replace("-", "_")
    if module in sys.stdlib_module_names or module in ("numpy", "pandas", "sklearn", "watchkeeper"):
        raise CannotTrainError(
            f"model name {name!r}: its package {module} would hide the module of that name; choose "
            f"a longer name, such as {name}-model"
        )
    return module


def write(
    folder: Path,
    name: str,
    decisions: Decisions,
    data: Data,
    adopted: AdoptedVersion | None = None,
) -> None:
    """Write a project into a new folder.

    Args:
        folder: must be missing.
        name: of the model.
        decisions: columns, truth and policies.
        data: where the rows are.
        adopted: a version of MLflow whose successors the model adopts; None if it is fitted.

    Raises:
        CannotTrainError: the folder exists, or its parent does not.
    """
    values = {
        "name": name,
        "module": module_of(name),
        "version": version("watchkeeper-training"),
        "shown": data.shown,
        "source": f'source = "{data.source}"' if data.source else _UNNAMED,
        **_test(data, adopted),
        **_adoption(name, adopted),
        "query": _query(decisions, data.table),
        "dropped": _dropped(decisions),
        "columns": "\n".join(_column(kept) for kept in decisions.kept),
        "encoder_import": _ENCODER_IMPORT if _has_categories(decisions) else "",
        "steps": _steps(decisions),
        "estimator": decisions.target.estimator,
        "answer_import": decisions.target.answer_import,
        "head": _head(decisions, adopted),
        "gate": decisions.target.gate,
        "answer": decisions.target.answer(decisions.target_name),
        "row_id": decisions.row_id,
        "target_note": _target_note(decisions),
    }
    templates = files(__package__) / "templates"
    try:
        folder.mkdir()
        for path, usual in FILES.items():
            template = ADOPTING.get(usual, usual) if adopted else usual
            file = folder / path.format(module=values["module"])
            file.parent.mkdir(parents=True, exist_ok=True)
            text = (templates / f"{template}.tmpl").read_text() if template else ""
            file.write_text(Template(text).substitute(values))
        if data.file is not None:
            shutil.copyfile(data.file, folder / data.source)
    except FileExistsError:
        raise CannotTrainError(f"{folder}: it exists already; remove it or choose a name") from None
    except OSError as error:
        raise CannotTrainError(f"{error.filename or folder}: {error.strerror}") from error


_UNNAMED: Final = (
    '# source = "postgresql+psycopg://reader@db.example.com/plant"\n'
    "# Without it, the variable WATCHKEEPER_SOURCE_URL names the database, with its password."
)
_CHECKED: Final = 'MODEL, URL, tmp_path_factory.mktemp("version") / MODEL.name'
_ENCODER_IMPORT: Final = "from sklearn.preprocessing import OneHotEncoder\n"


def _adoption(name: str, adopted: AdoptedVersion | None) -> dict[str, str]:
    """Return the parts about a version that the model adopts."""
    if adopted is None:
        return {"adopt": "", "adopt_values": "", "parameters": _CHECKED, "option": ""}
    note = (
        "CHECK: the version is a pickle, which executes what is in it when a training run opens it "
        'with trust="pickle". Do you trust whoever registers versions?'
    )
    return {
        "adopted": adopted.uri,
        "registered": repr(adopted.name),
        "adopt": f'adopt.{name} = {{model = {_text(adopted.name)}, when = "hand"}}\n',
        "adopt_values": f"\n    adopt:\n      model: {_text(adopted.name)}\n      when: hand",
        "adopt_note": "\n".join(_comment(note, "# ", "# ")) + "\n" if adopted.is_pickle else "",
        "parameters": "".join(
            f"\n        {word},"
            for word in (*_CHECKED.split(", "), f"MODEL.parameters(adopt={_text(adopted.uri)})")
        )
        + "\n    ",
        "option": f" --set adopt={adopted.uri}",
    }


def _test(data: Data, adopted: AdoptedVersion | None) -> dict[str, str]:
    """Return the parts of the tests that depend on where the rows and the estimator are."""
    found = _test_of_rows(data)
    if adopted is None:
        return found
    skip = (
        '    if not os.environ.get("MLFLOW_TRACKING_URI"):\n'
        '        pytest.skip("MLFLOW_TRACKING_URI names no MLflow")\n'
    )
    imports = (
        found["imports"] if "import os" in found["imports"] else "import os\n" + found["imports"]
    )
    return {**found, "imports": imports, "skip": found["skip"] + skip}


def _test_of_rows(data: Data) -> dict[str, str]:
    if data.file is not None:
        path = f"Path(__file__).resolve().parents[1] / '{data.source}'"
        return {
            "imports": "from pathlib import Path\n",
            "url": f'URL = f"csv:///{{{path}}}"',
            "skip": "",
        }
    url = 'URL = os.environ.get("WATCHKEEPER_SOURCE_URL")'
    if data.source:
        url = f'URL = os.environ.get(\n    "WATCHKEEPER_SOURCE_URL",\n    "{data.source}",\n)'
    return {
        "imports": "import os\n",
        "url": url,
        "skip": ""
        if data.source
        else '    if not URL:\n        pytest.skip("WATCHKEEPER_SOURCE_URL names no database")\n',
    }


def _query(decisions: Decisions, table: str) -> str:
    """Return the query, one column of the table on each line."""
    lines = [
        _aliased(quoted(decisions.row_id), decisions.row_id),
        *(
            _aliased(without(kept.source, kept.missing), kept.column.name)
            for kept in decisions.kept
        ),
        _aliased(decisions.target.truth, decisions.target_name),
    ]
    return "SELECT\n    " + ",\n    ".join(lines) + f"\nFROM {_plain(quoted(table))}"


def _aliased(expression: str, name: str) -> str:
    plain = _plain(quoted(name))
    return plain if expression == quoted(name) else f"{expression} AS {plain}"


def _plain(identifier: str) -> str:
    name = identifier.strip('"')
    return name if is_plain(name) else identifier


def _dropped(decisions: Decisions) -> str:
    if not decisions.dropped:
        return ""
    lines = ["", "# These columns of the table are not used:"]
    for dropped in decisions.dropped:
        lines += _comment(f"{dropped.source}: {dropped.reason}", "# - ", "#   ")
    return "\n".join(lines) + "\n"


def _column(kept: Kept) -> str:
    lines = [line for note in kept.notes for line in _comment(note, "    # ", "    # ")]
    return "\n".join([*lines, _call(kept.column)])


def _call(column: Column) -> str:
    """Return the code of a column, as ruff formats it."""
    words = [_text(column.name), _text(column.datatype)]
    if column.unit:
        words.append(f"unit={_text(column.unit)}")
    words += [
        f"{name}={value!r}"
        for name, value in (("minimum", column.minimum), ("maximum", column.maximum))
        if value is not None
    ]
    if column.nullable:
        words.append("nullable=True")
    if column.categories:
        cells = ", ".join(map(_text, column.categories))
        words.append(f"categories=({cells}{',' * (len(column.categories) == 1)})")
    line = f"    Column({', '.join(words)}),"
    if len(line) <= WIDTH:
        return line
    if column.categories:
        cells = "".join(f"            {_text(cell)},\n" for cell in column.categories)
        words[-1] = f"categories=(\n{cells}        )"
    return "    Column(\n" + "".join(f"        {word},\n" for word in words) + "    ),"


def _text(value: str) -> str:
    """Return a text as a literal of Python in double quotation marks, if it has none itself."""
    shown = repr(value)
    return f'"{shown[1:-1]}"' if '"' not in shown and shown[0] == "'" else shown


def _has_categories(decisions: Decisions) -> bool:
    return any(kept.column.categories for kept in decisions.kept)


def _has_numbers(decisions: Decisions) -> bool:
    return any(not kept.column.categories for kept in decisions.kept)


def _steps(decisions: Decisions) -> str:
    steps = []
    if _has_numbers(decisions):
        steps += [
            "    numbers = [column.name for column in COLUMNS if not column.categories]",
            '    steps: list[tuple[str, Any, list[str]]] = [("numbers", "passthrough", numbers)]',
        ]
    else:
        steps += ["    steps: list[tuple[str, Any, list[str]]] = []"]
    if _has_categories(decisions):
        steps += [
            "    for column in COLUMNS:",
            "        if column.categories:",
            *_encoder(decisions),
            "            steps.append((column.name, encoder, [column.name]))",
        ]
    return "\n".join(steps)


def _encoder(decisions: Decisions) -> list[str]:
    known = "list(column.categories)"
    lines = []
    if any(kept.column.categories and kept.column.nullable for kept in decisions.kept):
        known = "known"
        lines = [
            "            # A missing text is the empty text.",
            '            known = [*column.categories, *([""] if column.nullable else [])]',
        ]
    encoder = f"OneHotEncoder(categories=[{known}], sparse_output=False)"
    return [*lines, f"            encoder = {encoder}"]


def _head(decisions: Decisions, adopted: AdoptedVersion | None) -> str:
    """Return the heads, as ruff formats them."""
    score, more = decisions.target.head(decisions.target_name)
    words = [_text(score), "features=features", "estimator=forest"]
    if adopted is not None:
        words = [_text(score), f"adopt=Adopt({_text(adopted.name)})"]
    words += [f"label={_text(decisions.target_name)}", *([more] if more else [])]
    head = f"Head({', '.join(words)})"
    if len(line := f"    heads=({head},),") <= WIDTH:
        return line
    if len(line := f"        {head},") <= WIDTH:
        return f"    heads=(\n{line}\n    ),"
    inner = "".join(f"            {part},\n" for word in words for part in _parts(word))
    return f"    heads=(\n        Head(\n{inner}        ),\n    ),"


def _parts(word: str) -> list[str]:
    """Split arguments that were given together, but not the items of a tuple."""
    return [word] if "(" in word else word.split(", ")


def _target_note(decisions: Decisions) -> str:
    note = decisions.target.note
    if not note:
        return ""
    return "\n".join(_comment(note, "# ", "# ")) + "\n"


def _comment(note: str, first: str, others: str) -> Iterable[str]:
    return textwrap.wrap(
        " ".join(note.split()), WIDTH, initial_indent=first, subsequent_indent=others
    )
