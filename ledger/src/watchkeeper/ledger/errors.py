"""The errors of the ledger, so that no other project needs to import SQLAlchemy."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import SQLAlchemyError as LedgerError

from watchkeeper.core.settings import SettingsError

__all__ = ["LedgerError", "check_url", "hide_password", "refuses_values"]


def refuses_values(error: Exception) -> bool:
    """Return True if values can never be stored, False if nothing can be stored now.

    SQLAlchemy raises a ``StatementError`` that is not a ``DBAPIError`` if a value cannot be sent.
    """
    if isinstance(error, DataError | IntegrityError | OverflowError):
        return True
    return isinstance(error, StatementError) and not isinstance(error, DBAPIError)


def check_url(url: str) -> None:
    """Check that a text is a database URL; nothing is connected.

    Raises:
        SettingsError: the text is not a URL; the message does not contain the text.
    """
    try:
        make_url(url)
    except ArgumentError as error:
        raise SettingsError(str(error)) from error


def hide_password(url: str) -> str:
    """Return a database URL with ``***`` in place of its password."""
    return make_url(url).render_as_string(hide_password=True)
