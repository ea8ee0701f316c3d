"""``python -m watchkeeper.ledger.mlflow_owner``: give MLflow's database to a user of its own.

On the server of the ledger, one database may be MLflow's. The administrator of the server, who owns
the ledger, creates MLflow's user, and makes it the owner of that database and its tables. Earlier
releases created them as the administrator. This runs before each start of MLflow, so it does not
matter where the data comes from. A database on another server is left alone.

Exit code 0: MLflow's user may use its database. 1: the server did not answer in time, or refused;
run the command again. 2: a setting is wrong.
"""

import logging
import sys
import time
from typing import Annotated, Final

import msgspec
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError

from watchkeeper.core.retry import retry_until_answered
from watchkeeper.core.settings import read_settings
from watchkeeper.ledger.engines import open_engine, wait_for_other_migrations
from watchkeeper.ledger.starting import run_command, wait_for_database
from watchkeeper.ledger.users import LOCKED_SECONDS, ensure_login

# Sequences that belong to a column get the owner of their table.
RELATIONS_OF_OTHERS: Final = text("""
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
AND pg_get_userbyid(c.relowner) <> :user ORDER BY 1
""")

log = logging.getLogger("watchkeeper.ledger")


class OwnerSettings(msgspec.Struct, frozen=True):
    """The settings of the command."""

    ledger_url: Annotated[
        str, msgspec.Meta(description="SQLAlchemy URL of the ledger, with the administrator.")
    ]
    mlflow_url: Annotated[
        str, msgspec.Meta(description="SQLAlchemy URL of MLflow's database, with its user.")
    ]
    wait_seconds: Annotated[
        float, msgspec.Meta(description="How long to wait for the database, in seconds.")
    ] = 300.0


def main() -> int:
    """Hand the database over once; return the exit code."""
    return run_command(_run)


def _run() -> None:
    settings = read_settings(OwnerSettings)
    wait_for_database(settings.ledger_url, settings.wait_seconds)
    hand_over(settings.ledger_url, settings.mlflow_url)


def hand_over(administrator: str, url: str) -> None:
    """Make the user of a URL the owner of the URL's database and its tables. Safe to repeat.

    Args:
        administrator: the URL of an administrator of the server, for any database.
        url: the URL of MLflow's database and user.

    Raises:
        SettingsError: a URL is malformed, or the administrator may not create the user.
        LedgerError: the database does not answer, or refuses.
    """
    wanted, given = make_url(url), make_url(administrator)
    if wanted.username == given.username:
        return
    if (wanted.host, wanted.port) != (given.host, given.port):
        log.info("MLflow's database is on another server, %s, and stays as it is", wanted.host)
        return
    there = given.set(database=wanted.database).render_as_string(hide_password=False)
    engine = open_engine(there, for_migration=True)
    try:
        # A backup holds locks on all tables until its end.
        retry_until_answered(
            lambda: _hand_over(engine, url),
            (OperationalError,),
            deadline=time.monotonic() + LOCKED_SECONDS,
            refused=lambda _: False,
            refused_seconds=0.0,
        )
    finally:
        engine.dispose()


def _hand_over(engine: Engine, url: str) -> None:
    wanted = make_url(url)
    quote = engine.dialect.identifier_preparer.quote_identifier
    user, database = quote(str(wanted.username)), quote(str(wanted.database))
    with engine.begin() as connection:
        wait_for_other_migrations(connection)
        ensure_login(connection, url)
        connection.exec_driver_sql(f"ALTER DATABASE {database} OWNER TO {user}")
        others = connection.execute(RELATIONS_OF_OTHERS, {"user": wanted.username})
        for relation in others.scalars().all():
            connection.exec_driver_sql(f"ALTER TABLE {relation} OWNER TO {user}")


if __name__ == "__main__":
    sys.exit(main())
