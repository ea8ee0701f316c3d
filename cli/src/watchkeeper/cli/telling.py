"""What goes to standard error: lines for people, or with ``--json`` an object a line."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import typer
from sqlalchemy.exc import SQLAlchemyError
from typer.core import TyperGroup

from watchkeeper.cli.explain import UnknownPredictionError
from watchkeeper.cli.installation import UnknownModelError
from watchkeeper.cli.orders import OrderError
from watchkeeper.contracts.exits import end_at_sigterm
from watchkeeper.contracts.names import InvalidNameError
from watchkeeper.contracts.settings import SettingsError
from watchkeeper.platforms import PlatformError, RunRefusedError
from watchkeeper.registry import RegistryError

JSON: Final = "--json"
EXPECTED: Final = (
    InvalidNameError,
    OrderError,
    OSError,
    PlatformError,
    RegistryError,
    RunRefusedError,
    SQLAlchemyError,
    SettingsError,
    UnknownModelError,
    UnknownPredictionError,
)
# What a command line that cannot be understood raises; typer exports no name for it.
USAGE: Final[Any] = typer.BadParameter.__base__


class Commands(TyperGroup):
    """The commands; with ``--json`` a command line that is wrong is told as JSON, too."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command that the command line names."""
        end_at_sigterm()
        if JSON not in sys.argv[1:]:
            return super().main(*args, **options)
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except USAGE as error:
            _tell_error(error.format_message(), as_json=True)
            code = error.exit_code
        sys.exit(code or 0)


@contextlib.contextmanager
def clear_errors(as_json: bool, *, steps: bool = False) -> Iterator[None]:
    """Expected errors become one line and exit code 1; anything else is a defect of ours.

    With ``steps`` it is told what was done, too, besides what was odd.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("watchkeeper").setLevel(logging.INFO if steps else logging.NOTSET)
    try:
        yield
    except EXPECTED as error:
        _tell_error(str(error), as_json=as_json)
        raise typer.Exit(1) from error


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {"level": record.levelname.lower(), "message": record.getMessage()}
        return msgspec.json.encode(told).decode()


def _tell_error(why: str, *, as_json: bool) -> None:
    told = msgspec.json.encode({"error": why}).decode() if as_json else f"watchkeeper: {why}"
    print(told, file=sys.stderr)
