"""``python -m watchkeeper.ledger``: migrate the ledger's tables to this release.

Waits for a database that is still starting. Exit code 0: the tables fit this release. 1: the
database did not answer in time, or refused; run the command again. 2: a setting is wrong.
"""

import logging
import sys
import time
from contextlib import closing
from typing import Annotated, Final

import msgspec
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from watchkeeper.core.exit_codes import (
    EXIT_FATAL,
    EXIT_RETRY,
    EXIT_SUCCESS,
    exit_on_sigterm,
)
from watchkeeper.core.logs import configure_logging
from watchkeeper.core.retry import error_text, retry_until_answered
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.ledger.database import Ledger, migrate

# What PostgreSQL and MySQL say about a wrong password. It may be set a moment later.
REFUSALS: Final = ("authentication failed", "Access denied")
REFUSED_SECONDS: Final = 5.0

log = logging.getLogger("watchkeeper.ledger")


class MigrationSettings(msgspec.Struct, frozen=True):
    """The settings of the migration."""

    ledger_url: Annotated[str, msgspec.Meta(description="SQLAlchemy URL of the ledger.")]
    wait_seconds: Annotated[
        float, msgspec.Meta(description="How long to wait for the database, in seconds.")
    ] = 300.0


def main() -> int:
    """Migrate once; return the exit code."""
    exit_on_sigterm()
    configure_logging()
    try:
        settings = read_settings(MigrationSettings)
        _wait_for_database(settings)
        migrate(settings.ledger_url)
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400 - a user needs the message, not the traceback
        return EXIT_FATAL
    except SQLAlchemyError as error:
        log.error("%s", error_text(error))  # noqa: TRY400
        return EXIT_RETRY
    log.info("the ledger's tables fit this release")
    return EXIT_SUCCESS


def _wait_for_database(settings: MigrationSettings) -> None:
    ledger = Ledger(settings.ledger_url)

    def connect() -> None:
        with ledger.read():
            pass

    with closing(ledger):
        retry_until_answered(
            connect,
            (OperationalError,),
            deadline=time.monotonic() + settings.wait_seconds,
            refused=lambda error: any(text in error_text(error) for text in REFUSALS),
            refused_seconds=REFUSED_SECONDS,
        )


if __name__ == "__main__":
    sys.exit(main())
