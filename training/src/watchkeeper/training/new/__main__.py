"""``python -m watchkeeper.training.new NAME --from TABLE.csv [--target COLUMN]``.

Exit code 0: the folder NAME is a project. 2: the table or an argument must change first, and the
message says how. 1: the database or MLflow did not answer.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS, exit_on_sigterm
from watchkeeper.core.names import InvalidNameError, check_model_name
from watchkeeper.registry import RegistryError
from watchkeeper.training import CannotTrainError, SourceUnavailableError
from watchkeeper.training.new import project, tables
from watchkeeper.training.new.adopted import read_adopted
from watchkeeper.training.new.decisions import Decisions, decide
from watchkeeper.training.new.findings import describe
from watchkeeper.training.new.tables import Table
from watchkeeper.training.refusal import fail
from watchkeeper.training.table_file import ROW

NEXT: Final = """
Next:
  read {declaration}; lines with CHECK are guesses
  watchkeeper check {folder}{option}
  watchkeeper up {folder}"""


class Written(msgspec.Struct, frozen=True):
    """What was done: the project, its columns, and what is unusual in the table."""

    folder: str
    rows: int
    columns: list[str]
    dropped: dict[str, str]
    findings: list[str]


def new(name: str, options: argparse.Namespace) -> Written:
    """Read the table and write the project.

    Raises:
        CannotTrainError, InvalidNameError: the table or an argument must change.
        SourceUnavailableError, RegistryError: the database or MLflow does not answer.
    """
    check_model_name(name)
    project.module_of(name)
    folder = Path(name)
    if folder.exists():
        raise CannotTrainError(f"{folder}: it exists already; remove it, or choose another name")
    adopted = read_adopted(options.mlflow) if options.mlflow else None
    inputs = None if adopted is None else adopted.inputs
    if options.file is not None:
        with tables.open_file(options.file) as table:
            rows, decisions = _decide(table, options.targets, is_file=True, inputs=inputs)
        stem = re.sub(r"[^a-z0-9]+", "_", options.file.stem.lower()).strip("_") or "rows"
        data = project.Data(stem, f"{stem}.csv", options.file, options.file.name)
    else:
        with tables.open_database(options.source, options.table) as table:
            rows, decisions = _decide(table, options.targets, is_file=False, inputs=inputs)
        url = tables.without_password(options.source) or ""
        data = project.Data(options.table, url, None, f"the table {options.table}")
    project.write(folder, name, decisions, data, adopted)
    return Written(
        folder=f"./{folder}",
        rows=rows,
        columns=[kept.column.name for kept in decisions.kept],
        dropped={dropped.source: dropped.reason for dropped in decisions.dropped},
        findings=list(decisions.findings),
    )


def _decide(
    table: Table, targets: list[str], *, is_file: bool, inputs: dict[str, str] | None
) -> tuple[int, Decisions]:
    columns = describe(table.columns, table.rows)
    numbered = is_file and ROW not in (name.lower() for name in table.columns)
    decisions = decide(columns, targets, has_row_numbers=numbered, inputs=inputs)
    findings = (*table.findings, *decisions.findings)
    return columns[0].rows, msgspec.structs.replace(decisions, findings=findings)


def _print(written: Written, adopted: str | None) -> None:
    for finding in written.findings:
        print(f"  {finding}")
    print(
        f"{written.folder}: a model with {len(written.columns)} columns, from {written.rows} rows"
    )
    module = project.module_of(Path(written.folder).name)
    declaration = f"{written.folder}/src/{module}/model.py"
    option = f" --set adopt={adopted}" if adopted else ""
    print(NEXT.format(declaration=declaration, folder=written.folder, option=option))
    if adopted:
        print(f"  watchkeeper adopt {adopted} --model {Path(written.folder).name}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    exit_on_sigterm()
    parser = argparse.ArgumentParser(
        prog="watchkeeper new", description="Write the project of a model from a table."
    )
    parser.add_argument("name", help="name of the model, for example pump-failure")
    parser.add_argument("--from", dest="file", type=Path, help="a CSV file")
    parser.add_argument("--source", help="the SQLAlchemy URL of a database")
    parser.add_argument("--table", help="a table or view of that database")
    parser.add_argument(
        "--target",
        dest="targets",
        action="append",
        default=[],
        help="a column with a truth; the first one has the main head. Without any, the model says "
        "how usual a row is",
    )
    parser.add_argument(
        "--mlflow",
        metavar="models:/NAME/VERSION",
        help="a version in MLflow whose successors the model adopts",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args(arguments)
    given = [options.file is not None, options.source is not None, options.table is not None]
    if given not in ([True, False, False], [False, True, True]):
        parser.error("give either --from FILE, or --source URL with --table NAME")
    if options.mlflow and len(options.targets) > 1:
        parser.error("a version of MLflow predicts one truth; give one --target with --mlflow")
    try:
        written = new(options.name, options)
    except (CannotTrainError, InvalidNameError) as error:
        return fail(str(error), EXIT_FATAL, as_json=options.json)
    except (SourceUnavailableError, RegistryError) as error:
        return fail(str(error), EXIT_RETRY, as_json=options.json)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(written), indent=2).decode())
    else:
        _print(written, options.mlflow)
    return EXIT_SUCCESS


if __name__ == "__main__":
    sys.exit(main())
