"""Results and errors of commands: text for people, or with ``--json`` JSON for programs."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from typer.core import TyperGroup

from watchkeeper.cli.commands import CommandError
from watchkeeper.cli.explain import UnknownPredictionError
from watchkeeper.cli.history import SinceError
from watchkeeper.cli.system import UnknownModelError
from watchkeeper.core.exit_codes import exit_on_sigterm
from watchkeeper.core.names import InvalidNameError
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.platforms import PlatformError, RunRefusedError
from watchkeeper.registry import RegistryError
from watchkeeper.registry.snapshots import RefusedSnapshotError, SnapshotError

console = Console()
JSON: Final = "--json"
Json = Annotated[bool, typer.Option(JSON, help="Print JSON for programs.")]
# Errors with a message for the user. Every other error is a defect and keeps its traceback.
EXPECTED: Final = (
    InvalidNameError,
    CommandError,
    OSError,
    PlatformError,
    RegistryError,
    RefusedSnapshotError,
    RunRefusedError,
    SnapshotError,
    SinceError,
    LedgerError,
    SettingsError,
    UnknownModelError,
    UnknownPredictionError,
)
# The base of all errors in a command line; typer exports no name for it.
USAGE_ERROR: Final[Any] = typer.BadParameter.__base__


class JsonErrorGroup(TyperGroup):
    """The group of all commands. With ``--json`` a wrong command line is reported as JSON, too."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command that the command line names."""
        exit_on_sigterm()
        if JSON not in sys.argv[1:]:
            return super().main(*args, **options)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except USAGE_ERROR as error:
            _print_error(error.format_message(), as_json=True)
            code = error.exit_code
        sys.exit(code or 0)


def print_result(value: Any, as_json: bool, print_for_people: Callable[[], None]) -> None:
    """Print what a command has found, as JSON or for people."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
    else:
        print_for_people()


def print_done(message: str, as_json: bool) -> None:
    """Print in one sentence what a command has done."""
    print_result({"done": message}, as_json, lambda: console.print(message))


@contextlib.contextmanager
def report_errors(as_json: bool, *, verbose: bool = False) -> Iterator[None]:
    """Turn an expected error into one line and exit code 1.

    Warnings go to standard error; with ``verbose`` also what was done.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("watchkeeper").setLevel(logging.INFO if verbose else logging.NOTSET)
    try:
        yield
    except EXPECTED as error:
        _print_error(str(error), as_json=as_json)
        raise typer.Exit(1) from error


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "message": record.getMessage()}
        return msgspec.json.encode(line).decode()


def _print_error(message: str, *, as_json: bool) -> None:
    line = (
        msgspec.json.encode({"error": message}).decode() if as_json else f"watchkeeper: {message}"
    )
    print(line, file=sys.stderr)
