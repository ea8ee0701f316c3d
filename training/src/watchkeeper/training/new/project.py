"""Write the files of a project from the templates beside this module."""

import shutil
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import msgspec

from watchkeeper.core.signature import Column
from watchkeeper.training import CannotTrainError
from watchkeeper.training.new import heads
from watchkeeper.training.new.adopted import AdoptedVersion
from watchkeeper.training.new.code import WIDTH, comment, literal
from watchkeeper.training.new.columns import Kept
from watchkeeper.training.new.decisions import Decisions
from watchkeeper.training.new.tables import is_plain
from watchkeeper.training.table_file import quoted

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
    ".github/workflows/deliver.yaml": "deliver.yaml",
    "README.md": "README.md",
}

ADOPTING: Final = {"model.py": "adopting.py"}  # instead, if the model adopts versions of MLflow
# Of models that are fitted: a push of one that adopts versions starts no training run.
FITTED: Final = {"deliver.yaml"}


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
        "leakage": _LEAKAGE if decisions.truths else "",
        **_adoption(name, adopted),
        "query": _query(decisions, data.table),
        "dropped": _dropped(decisions),
        "columns": "\n".join(_column(kept) for kept in decisions.kept),
        "encoder_import": _ENCODER_IMPORT if _has_categories(decisions) else "",
        "steps": _steps(decisions),
        **heads.parts(decisions.truths, adopted),
        "row_id": decisions.row_id,
        "workflow": "" if adopted else _WORKFLOW,
    }
    templates = files(__package__) / "templates"
    try:
        folder.mkdir()
        for path, usual in FILES.items():
            if adopted and usual in FITTED:
                continue
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


_WORKFLOW: Final = (
    "\n| `.github/workflows/deliver.yaml` | delivers each push to a cluster, and reports the "
    "result; delete it if you do not use GitHub |"
)
_UNNAMED: Final = (
    '# source = "postgresql+psycopg://reader@db.example.com/plant"\n'
    "# Without it, the variable WATCHKEEPER_SOURCE_URL names the database, with its password."
)
_CHECKED: Final = 'MODEL, URL, tmp_path_factory.mktemp("version") / MODEL.name'
_LEAKAGE: Final = """

def test_no_column_knows_the_truth(checked: Check) -> None:
    (leakage,) = (each for each in checked.report.checks if each.name == "leakage")
    assert leakage.passed, leakage.reason
"""
_ENCODER_IMPORT: Final = "from sklearn.preprocessing import OneHotEncoder\n"


def _adoption(name: str, adopted: AdoptedVersion | None) -> dict[str, str]:
    """Return the parts about a version that the model adopts."""
    if adopted is None:
        return {"adopt": "", "adopt_values": "", "parameters": _CHECKED, "option": ""}
    notes = {
        "CHECK: the version is a pickle, which executes what is in it when a training run opens it "
        'with trust="pickle". Do you trust whoever registers versions?': adopted.is_pickle,
        "CHECK: the version consists of code, which training runs and servers execute. Do you "
        "trust whoever registers versions?": adopted.is_code,
    }
    note = "".join(f"{x}\n" for note in notes if notes[note] for x in comment(note, "# ", "# "))
    trust = "trusted_code = true\n" if adopted.is_code else ""
    return {
        "adopted": adopted.uri,
        "registered": repr(adopted.name),
        "adopt": f'adopt.{name} = {{model = {literal(adopted.name)}, when = "hand"}}\n{trust}',
        "adopt_values": f"\n    adopt:\n      model: {literal(adopted.name)}\n      when: hand",
        "adopt_note": note,
        "parameters": "".join(
            f"\n        {word},"
            for word in (*_CHECKED.split(", "), f"MODEL.parameters(adopt={literal(adopted.uri)})")
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
        *(_aliased(kept.expression, kept.column.name) for kept in decisions.kept),
        *(_aliased(truth.target.truth, truth.name) for truth in decisions.truths),
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
        lines += comment(f"{dropped.source}: {dropped.reason}", "# - ", "#   ")
    return "\n".join(lines) + "\n"


def _column(kept: Kept) -> str:
    lines = [line for note in kept.notes for line in comment(note, "    # ", "    # ")]
    return "\n".join([*lines, _call(kept.column)])


def _call(column: Column) -> str:
    """Return the code of a column, as ruff formats it."""
    words = [literal(column.name), literal(column.datatype)]
    if column.unit:
        words.append(f"unit={literal(column.unit)}")
    words += [
        f"{name}={value!r}"
        for name, value in (("minimum", column.minimum), ("maximum", column.maximum))
        if value is not None
    ]
    if column.nullable:
        words.append("nullable=True")
    unseen = ['unseen="accept"'] if column.unseen == "accept" else []
    cells = [literal(cell) for cell in column.categories]
    listed = f"categories=({', '.join(cells)}{',' * (len(cells) == 1)})"
    line = f"    Column({', '.join([*words, *([listed] if cells else []), *unseen])}),"
    if len(line) <= WIDTH:
        return line
    if cells:
        words.append("categories=(\n" + "".join(f"            {c},\n" for c in cells) + "        )")
    words += unseen
    return "    Column(\n" + "".join(f"        {word},\n" for word in words) + "    ),"


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
    if any(kept.column.unseen == "accept" for kept in decisions.kept):
        return [
            *lines,
            '            unknown = "ignore" if column.unseen == "accept" else "error"',
            "            encoder = OneHotEncoder(",
            f"                categories=[{known}], handle_unknown=unknown, sparse_output=False",
            "            )",
        ]
    encoder = f"OneHotEncoder(categories=[{known}], sparse_output=False)"
    return [*lines, f"            encoder = {encoder}"]
