"""The database users of the components, and what each may do.

The owner of the tables migrates them, and grants rights to three kinds of users:

- A *writer* is the user of one model's sidecars. It writes what they ship. On PostgreSQL it sees
  and writes the rows of its own model only (row-level security); on MySQL and MariaDB it is limited
  by its rights on the tables only.
- The *shared writer* is the user of all other sidecars, without a limit on rows.
- The *reader* is the user of rollout, training and the command line. It reads everything, and adds
  events, training runs and requests to delete a subject.

SQLite has no users.
"""

import time
from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, column, make_url, select, table
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from watchkeeper.core.retry import error_text, retry_until_answered
from watchkeeper.core.settings import SettingsError
from watchkeeper.ledger.account_sql import AccountSQL, account_sql
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
    "concept_blocks": "SELECT, INSERT, DELETE",
    "episodes": "SELECT, INSERT, UPDATE",
    "attempts": "SELECT, INSERT",
    "events": "SELECT, INSERT, DELETE",
    REVISIONS: "SELECT",
}
# How long to try again while others, such as a backup, hold locks.
LOCKED_SECONDS: Final = 600.0


class _User(msgspec.Struct, frozen=True):
    name: str
    url: str
    rights: Mapping[str, str]
    model: str | None = None  # the only model whose rows it may see and write


def grant_rights(
    owner: str,
    *,
    reader: str = "",
    writer: str = "",
    writers: Mapping[str, str] | None = None,
) -> None:
    """Create the users that cannot connect yet, and grant all users their rights. Safe to repeat.

    A user that is the owner itself gets no rights: it has all of them.

    Args:
        owner: the URL of the owner of the tables, which are migrated.
        reader: the URL of the reader; no reader if empty.
        writer: the URL of the shared writer; no shared writer if empty.
        writers: the URLs of writers by model. A model that is not here is one of the shared writer.

    Raises:
        SettingsError: a URL is malformed or names no user, two of these users are the same, or the
            owner may not create a user that cannot connect, or grant it its rights.
        LedgerError: the database does not answer, or refuses.
    """
    engine = open_engine(owner, for_migration=True)
    try:
        if (sql := account_sql(engine.dialect)) is None:
            return
        users = _users(engine.url.username, reader, writer, writers or {})
        with engine.begin() as connection:
            wait_for_other_migrations(connection)
            for user in users:
                ensure_login(connection, user.url)
                _grant(connection, sql, user)
        limits = {user.name: user.model for user in users}
        for relation in metadata.tables:
            _limit_rows(engine, sql, relation, limits)
    finally:
        engine.dispose()
    for user in users:
        _check_connection(user)


def ensure_login(connection: Connection, url: str) -> None:
    """Create the user of a URL, or give it the password of the URL, unless it can connect.

    A user whom somebody else has created keeps its password: it may be the user of another
    installation.

    Args:
        connection: a connection of an administrator.
        url: the URL of the user.

    Raises:
        SettingsError: the user is somebody else's, or the administrator has no right to do so.
    """
    sql, refusal = account_sql(connection.dialect), _connection_error(url)
    if sql is None or refusal is None:
        return
    name, password = make_url(url).username or "", str(make_url(url).password or "")
    cannot = f"the database user {name} cannot connect ({error_text(refusal)})"
    try:
        changed = sql.set_password(connection, name, password)
    except (ProgrammingError, OperationalError) as error:
        raise SettingsError(
            f"{cannot}, and the user {connection.engine.url.username} may not create it or change "
            f"its password ({error_text(error)}). Do it as an administrator: {sql.advice(name)}"
        ) from error
    if not changed:
        raise SettingsError(
            f"{cannot}, and this database has not created it, so its password stays as it is. Give "
            "the URL another user or the right password"
        )


def _users(owner: str | None, reader: str, writer: str, writers: Mapping[str, str]) -> list[_User]:
    found: dict[str, tuple[str, _User]] = {}
    given = [
        *((f"the writer of {model}", url, WRITER, model) for model, url in writers.items()),
        ("the shared writer", writer, WRITER, None),
        ("the reader", reader, READER, None),
    ]
    for what, url, rights, model in given:
        if not url:
            continue
        open_engine(url).dispose()  # checks the URL
        if not (name := make_url(url).username):
            raise SettingsError(f"the URL of the ledger for {what} names no user")
        if name == owner:
            continue
        if name in found and model is not None:
            raise SettingsError(
                f"{found[name][0]} and {what} are the same database user {name}, which is "
                "limited to the rows of one model; for several models use the shared writer"
            )
        if name in found:
            raise SettingsError(f"{found[name][0]} and {what} are the same database user {name}")
        found[name] = (what, _User(name, url, rights, model))
    return [user for _, user in found.values()]


def _grant(connection: Connection, sql: AccountSQL, user: _User) -> None:
    statements = sql.grants(connection, user.rights, user.name)
    try:
        for statement in statements:
            connection.exec_driver_sql(statement)
    except (ProgrammingError, OperationalError) as error:
        raise SettingsError(
            f"the user {connection.engine.url.username} may not grant rights to {user.name} "
            f"({error_text(error)}). Do it as an administrator: {'; '.join(statements)}"
        ) from error


def _limit_rows(
    engine: Engine, sql: AccountSQL, relation: str, limits: Mapping[str, str | None]
) -> None:
    """Limit users to the rows of their models in one table, as soon as its lock is free."""

    def limit() -> None:
        with engine.begin() as connection:
            wait_for_other_migrations(connection)
            sql.limit_rows(connection, relation, limits)

    retry_until_answered(
        limit,
        (OperationalError,),
        deadline=time.monotonic() + LOCKED_SECONDS,
        refused=lambda _: False,
        refused_seconds=0.0,
    )


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
