"""Waiting for a database that is still starting."""

import time
from contextlib import closing
from typing import Final

from sqlalchemy.exc import OperationalError

from watchkeeper.core.retry import error_text, retry_until_answered
from watchkeeper.ledger.database import Ledger

# What PostgreSQL and MySQL say about a wrong password. It may be set a moment later.
REFUSALS: Final = ("authentication failed", "Access denied")
REFUSED_SECONDS: Final = 5.0


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
