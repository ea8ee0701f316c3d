"""Giving MLflow's database to a user of its own.

In a PostgreSQL that the ledger's owner administers, one database is MLflow's. Earlier releases
created its tables as the administrator.
"""

from typing import Final

from sqlalchemy import make_url, text

from watchkeeper.ledger.engines import open_engine
from watchkeeper.ledger.users import ensure_login

# Sequences that belong to a column get the owner of their table.
RELATIONS_OF_OTHERS: Final = text("""
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
AND pg_get_userbyid(c.relowner) <> :user ORDER BY 1
""")


def hand_over(administrator: str, url: str) -> None:
    """Make the user of a URL the owner of the URL's database and its tables. Safe to repeat.

    Args:
        administrator: the URL of an administrator of the server, for any database.
        url: the URL of MLflow's database and user.

    Raises:
        SettingsError: a URL is malformed, or the administrator may not create the user.
        LedgerError: the database does not answer, or refuses.
    """
    wanted = make_url(url)
    there = make_url(administrator).set(database=wanted.database)
    if wanted.username == there.username:
        return
    engine = open_engine(there.render_as_string(hide_password=False), for_migration=True)
    quote = engine.dialect.identifier_preparer.quote_identifier
    user, database = quote(str(wanted.username)), quote(str(wanted.database))
    try:
        with engine.begin() as connection:
            ensure_login(connection, url)
            connection.exec_driver_sql(f"ALTER DATABASE {database} OWNER TO {user}")
            others = connection.execute(RELATIONS_OF_OTHERS, {"user": wanted.username})
            for relation in others.scalars().all():
                connection.exec_driver_sql(f"ALTER TABLE {relation} OWNER TO {user}")
    finally:
        engine.dispose()
