"""The database users of the components, and what each may do.

The owner of the tables migrates them, and grants rights to two kinds of users:

- A *writer* is the user of a model's sidecars. It writes what they ship. On PostgreSQL it sees and
  writes the rows of its own model only (row-level security). A writer of several models, and one on
  MySQL or MariaDB, is limited by its rights on the tables only.
- The *reader* is the user of rollout, training and the command line. It reads everything, and adds
  events, training runs and requests to delete a subject.

SQLite has no users.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, column, make_url, select, table
from sqlalchemy.exc import OperationalError, ProgrammingError

from watchkeeper.core.retry import error_text
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger.account_sql import account_sql
from watchkeeper.ledger.database import Ledger
from watchkeeper.ledger.engines import open_engine, wait_for_other_migrations
from watchkeeper.ledger.tables import metadata

REVISIONS: Final = "alembic_version"
READER: Final[Mapping[str, str]] = {
    **dict.fromkeys((*metadata.tables, REVISIONS), "SELECT"),
    **dict.fromkeys(("attempts", "deletions", "events"), "SELECT, INSERT"),
}
WRITER: Final[Mapping[str, str]] = {
    "predictions": "SELECT, INSERT, UPDATE, DELETE",
    "labels": "SELECT, INSERT, UPDATE, DELETE",
    "superseded": "SELECT, INSERT, DELETE",
    "spools": "SELECT, INSERT, UPDATE",
    "gaps": "SELECT, INSERT, DELETE",
    "deletions": "SELECT, UPDATE",
    "forgotten": "SELECT, INSERT, DELETE",
    "removals": "SELECT, INSERT, UPDATE, DELETE",
    "drift_reports": "SELECT, INSERT, DELETE",
    "episodes": "SELECT, INSERT, UPDATE",
    "attempts": "SELECT, INSERT",
    "events": "SELECT, INSERT, DELETE",
    REVISIONS: "SELECT",
}


class _User(msgspec.Struct, frozen=True):
    name: str
    url: str
    rights: Mapping[str, str]
    model: str | None = None  # the only model whose rows it may see and write


def grant_rights(owner: str, *, reader: str = "", writers: Mapping[str, str] | None = None) -> None:
    """Create the users that cannot connect yet, and grant all users their rights. Safe to repeat.

    A user that is the owner itself gets no rights: it has all of them.

    Args:
        owner: the URL of the owner of the tables, which are migrated.
        reader: the URL of the reader; no reader if empty.
        writers: the URL of each model's writer. Models may share one.

    Raises:
        SettingsError: a URL is malformed or names no user, or the owner may not create a user that
            cannot connect.
        LedgerError: the database does not answer, or refuses.
    """
    engine = open_engine(owner, for_migration=True)
    try:
        if (sql := account_sql(engine.dialect)) is None:
            return
        users = [u for u in _users(reader, writers or {}) if u.name != engine.url.username]
        with engine.begin() as connection:
            wait_for_other_migrations(connection)
            for user in users:
                ensure_login(connection, user.url)
                for relation, rights in user.rights.items():
                    sql.grant(connection, rights, relation, user.name)
            sql.limit_rows(connection, {user.name: user.model for user in users})
    finally:
        engine.dispose()
    for user in users:
        _check_connection(user)


def ensure_login(connection: Connection, url: str) -> None:
    """Create the user of a URL, or give it the password of the URL, unless it can connect.

    Args:
        connection: a connection of an administrator.
        url: the URL of the user.

    Raises:
        SettingsError: the administrator has no right to do so.
    """
    sql, refusal = account_sql(connection.dialect), _connection_error(url)
    if sql is None or refusal is None:
        return
    name, password = make_url(url).username or "", str(make_url(url).password or "")
    try:
        sql.set_password(connection, name, password)
    except (ProgrammingError, OperationalError) as error:
        raise SettingsError(
            f"the database user {name} cannot connect ({error_text(refusal)}), and the user "
            f"{connection.engine.url.username} may not create it or change its password "
            f"({error_text(error)}). Do it as an administrator: {sql.advice(name)}"
        ) from error


def _users(reader: str, writers: Mapping[str, str]) -> list[_User]:
    models = defaultdict(list)
    for model, url in writers.items():
        models[_name_in(url, f"the ledger's writer of {model}"), url].append(model)
    found = [
        _User(name, url, WRITER, model=own[0] if len(own) == 1 else None)
        for (name, url), own in models.items()
    ]
    if reader:
        found.append(_User(_name_in(reader, "the ledger's reader"), reader, READER))
    return found


def _name_in(url: str, what: str) -> str:
    open_engine(url).dispose()  # checks the URL
    if not (name := make_url(url).username):
        raise SettingsError(f"the URL of {what} names no user")
    return name


def _connection_error(url: str) -> OperationalError | None:
    ledger = Ledger(url)
    try:
        with ledger.read():
            return None
    except OperationalError as error:
        return error
    finally:
        ledger.close()


def _check_connection(user: _User) -> None:
    """Check that the URL of a user leads to the same tables."""
    ledger = Ledger(user.url)
    try:
        with ledger.read() as connection:
            connection.execute(select(table(REVISIONS, column("version_num")))).one()
    finally:
        ledger.close()
