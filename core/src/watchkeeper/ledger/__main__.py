"""``python -m watchkeeper.ledger``: bring the ledger's tables to this release.

Waits for a database that is still starting. Exit code 0: the tables are as this release needs
them. 1: the database did not answer in time, or refused; run it again. 2: a setting is wrong.
"""

import logging
import sys
import time
from contextlib import closing

import msgspec
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from watchkeeper.contracts.exits import DONE, GIVE_UP, TRY_AGAIN, end_at_sigterm
from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.patience import ask_patiently, in_words
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.ledger.database import Ledger, migrate

REFUSED = ("authentication failed", "Access denied")  # PostgreSQL and MySQL about a password
REFUSED_SECONDS = 5.0  # as long as one may be refused that is about to be set

log = logging.getLogger("watchkeeper.ledger")


class Settings(msgspec.Struct, frozen=True):
    """``wait_seconds``: how long a database may take until it answers."""

    ledger_url: str
    wait_seconds: float = 300.0


def main() -> int:
    """Migrate once; return the exit code."""
    end_at_sigterm()
    set_up_log()
    try:
        settings = read_settings(Settings)
        _wait(settings)
        migrate(settings.ledger_url)
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for a user, not for a developer
        return GIVE_UP
    except SQLAlchemyError as error:
        log.error("%s", in_words(error))  # noqa: TRY400
        return TRY_AGAIN
    log.info("the ledger's tables are as this release needs them")
    return DONE


def _wait(settings: Settings) -> None:
    ledger = Ledger(settings.ledger_url)

    def ask() -> None:
        with ledger.read():
            pass

    with closing(ledger):
        ask_patiently(
            ask,
            (OperationalError,),
            deadline=time.monotonic() + settings.wait_seconds,
            refused=lambda error: any(word in in_words(error) for word in REFUSED),
            refused_seconds=REFUSED_SECONDS,
        )


if __name__ == "__main__":
    sys.exit(main())
