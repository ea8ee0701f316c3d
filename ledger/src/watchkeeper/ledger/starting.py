"""What the commands of this package share: waiting for a database that starts, and exit codes."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from watchkeeper.core.exit_codes import (
    EXIT_FATAL,
    EXIT_RETRY,
    EXIT_SUCCESS,
    exit_on_sigterm,
)
from watchkeeper.core.logs import configure_logging
from watchkeeper.core.retry import error_text, retry_until_answered
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger.database import Ledger

# What PostgreSQL and MySQL say about a wrong password. It may be set a moment later.
REFUSALS: Final = ("authentication failed", "Access denied")
REFUSED_SECONDS: Final = 5.0

log = logging.getLogger("watchkeeper.ledger")


def run_command(work: Callable[[], None]) -> int:
    """Do the work of a command, log its error, and return the exit code."""
    exit_on_sigterm()
    configure_logging()
    try:
        work()
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400 - a user needs the message, not the traceback
        return EXIT_FATAL
    except SQLAlchemyError as error:
        log.error("%s", error_text(error))  # noqa: TRY400
        return EXIT_RETRY
    return EXIT_SUCCESS


def wait_for_database(url: str, seconds: float) -> None:
    """Wait until a database answers.

    Args:
        url: its URL.
        seconds: how long to wait.

    Raises:
        SettingsError: the URL is malformed.
        LedgerError: the database did not answer in time, or refuses the user.
    """
    ledger = Ledger(url)

    def connect() -> None:
        with ledger.read():
            pass

    with closing(ledger):
        retry_until_answered(
            connect,
            (OperationalError,),
            deadline=time.monotonic() + seconds,
            refused=lambda error: any(text in error_text(error) for text in REFUSALS),
            refused_seconds=REFUSED_SECONDS,
        )
