"""Differences between the databases: how each is opened, and its time limits.

A database may be down, stop in the middle of an answer, or hold a lock for ever. Every wait has a
time limit, so that callers can report the error and try again.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError

from watchkeeper.core.settings import SettingsError

URLS = (
    "sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, "
    "mysql+pymysql://USER:PASSWORD@HOST/DATABASE (MySQL, MariaDB)"
)

CONNECT_SECONDS = 5
LOCK_SECONDS = 10  # how long a transaction waits for the locks of another
STATEMENT_SECONDS = 30  # the limit of a statement, watched by the database
ANSWER_SECONDS = 40  # the same, watched by the client: a frozen database watches nothing
MIGRATION_SECONDS = 3600  # the limit of a statement of a migration: it may rewrite a table

# Names a file with certificates of authorities. A connection then needs TLS, and a certificate of
# one of them for the host of the URL. The file is read for each connection, so it may be replaced.
CA: Final = "WATCHKEEPER_LEDGER_CA"


def open_engine(url: str, *, for_migration: bool = False) -> Engine:
    """Create the engine of a database.

    Connections to PostgreSQL, MySQL and MariaDB need TLS if WATCHKEEPER_LEDGER_CA names a file.

    Args:
        url: The SQLAlchemy URL.
        for_migration: Whether statements may take up to an hour.

    Raises:
        SettingsError: the URL is malformed, its database is not supported, or the file of
            WATCHKEEPER_LEDGER_CA is missing.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            f"the ledger's URL is malformed: {error}; supported are {URLS}"
        ) from error
    match parsed.drivername:
        case "sqlite" | "sqlite+pysqlite":
            return _sqlite(parsed, for_migration)
        case "postgresql" | "postgresql+psycopg":
            return _postgresql(parsed, for_migration)
        case "mysql+pymysql" | "mariadb+pymysql":
            return _mysql(parsed, for_migration)
        case other:
            shown = parsed.render_as_string(hide_password=True)
            raise SettingsError(f"{shown}: {other} is not supported; supported are {URLS}")


def wait_for_other_migrations(connection: Connection) -> None:
    """Take the lock that lets one migration run at a time; its transaction releases it.

    SQLite takes its lock at the beginning of a transaction, so it needs no other.
    """
    match connection.dialect.name:
        case "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('watchkeeper'))")
            # A statement that waits for a lock on a table blocks all later ones on that table.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        case "mysql" | "mariadb":  # held by the connection, until the migration closes it
            name = "LEFT(CONCAT('watchkeeper.', DATABASE()), 64)"
            connection.exec_driver_sql(f"SELECT GET_LOCK({name}, {MIGRATION_SECONDS - 10})")


def _sqlite(url: URL, for_migration: bool) -> Engine:
    seconds = MIGRATION_SECONDS if for_migration else LOCK_SECONDS
    # One connection stays open: SQLite writes its whole log back when the last one closes.
    engine = create_engine(url, pool_size=1, connect_args={"timeout": seconds}, **_common())

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # Several processes write. WAL: readers do not block writers. No isolation level: a
        # transaction takes its lock at once, or two that read before they write would deadlock.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, for_migration: bool) -> Engine:
    limits = {
        "lock_timeout": LOCK_SECONDS,
        "statement_timeout": MIGRATION_SECONDS if for_migration else STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": MIGRATION_SECONDS,
    }
    options = " ".join(f"-c {name}={seconds}s" for name, seconds in limits.items())
    given = url.query.get("options", "")
    engine = create_engine(
        url.difference_update_query(["options"]),
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": f"{given} {options}".strip(),
            **_tls(url),
        },
        **_common(),
        **_pool(),
    )
    seconds = MIGRATION_SECONDS if for_migration else ANSWER_SECONDS

    @event.listens_for(engine, "do_connect")
    def on_connect(_dialect: object, _record: object, arguments: Any, parameters: Any) -> Any:
        # psycopg is loaded only for PostgreSQL.
        from watchkeeper.ledger import postgresql_timeout  # noqa: PLC0415

        connection = postgresql_timeout.connection_with_timeout(seconds)
        return connection.connect(*arguments, **parameters)

    return engine


def _mysql(url: URL, for_migration: bool) -> Engine:
    seconds = MIGRATION_SECONDS if for_migration else ANSWER_SECONDS
    packet = [16 * 2**20]

    def encode(value: object) -> str:
        # A statement above the limit breaks the connection, and a sidecar would try it for ever.
        # Quotes are escaped, which makes them longer. Inputs and outputs share a statement.
        text = _encode(value)
        size = len(text.encode()) + text.count('"') + text.count("\\")
        if size > packet[0] // 2 - 2**16:
            raise ValueError(
                f"{size} bytes of JSON exceed the size of a statement; "
                f"raise the database's max_allowed_packet, which is {packet[0]}"
            )
        return text

    engine = create_engine(
        url,
        # Without the gap locks of REPEATABLE READ, which make two sidecars wait for each other.
        isolation_level="READ COMMITTED",
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": seconds,
            "write_timeout": seconds,
            # The first limits locks of rows, the second locks of tables.
            "init_command": f"SET SESSION innodb_lock_wait_timeout={LOCK_SECONDS}, "
            f"SESSION lock_wait_timeout={LOCK_SECONDS}",
            **_tls(url),
        },
        **{**_common(), "json_serializer": encode},
        **_pool(),
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            packet[0] = int(cursor.fetchone()[0])

    return engine


def _tls(url: URL) -> dict[str, Any]:
    """Return the arguments by which a driver needs TLS and checks the certificate of the server."""
    if not (path := os.environ.get(CA)):
        return {}
    if not Path(path).is_file():
        raise SettingsError(f"{CA}={path}: there is no such file")
    if url.get_backend_name() == "postgresql":
        return {"sslmode": "verify-full", "sslrootcert": path}
    return {"ssl_ca": path, "ssl_verify_cert": True, "ssl_verify_identity": True}


def _common() -> dict[str, Any]:
    return {
        "hide_parameters": True,
        # NaN and infinity become null: JSON has no such numbers, and databases refuse them.
        "json_serializer": _encode,
        "json_deserializer": _decode,
    }


def _pool() -> dict[str, Any]:
    return {
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_size": 2,
        "max_overflow": 2,
        "pool_timeout": LOCK_SECONDS,
    }


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decode(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)  # an earlier release has written NaN
