"""What differs between the databases: how each is opened, and how long anything may take.

A database may be down, frozen in the middle of an answer, or hold a lock that never goes: each
has an end here, so that whoever waits can say so and try again.
"""

import json
from typing import Any

import msgspec
from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError

from watchkeeper.contracts.settings import SettingsError

URLS = (
    "sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, "
    "mysql+pymysql://USER:PASSWORD@HOST/DATABASE (MySQL, MariaDB)"
)

CONNECT_SECONDS = 5
LOCK_SECONDS = 10  # how long a transaction waits for another one
STATEMENT_SECONDS = 30  # what the database itself gives a statement
ANSWER_SECONDS = 40  # what we give it: a frozen one watches no time
PATIENT_SECONDS = 3600  # for migrations, which may rewrite a table


def open_engine(url: str, *, patient: bool = False) -> Engine:
    """Open the engine of a database; ``patient`` lets statements take as long as they need.

    Raises:
        SettingsError: this is no URL, or of a database that no ledger is kept in.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(f"the ledger's URL is none: {error}; it is one of {URLS}") from error
    match parsed.drivername:
        case "sqlite" | "sqlite+pysqlite":
            return _sqlite(parsed, patient)
        case "postgresql" | "postgresql+psycopg":
            return _postgresql(parsed, patient)
        case "mysql+pymysql" | "mariadb+pymysql":
            return _mysql(parsed, patient)
        case other:
            told = parsed.render_as_string(hide_password=True)
            raise SettingsError(f"{told}: no ledger is kept in {other}; its URL is one of {URLS}")


def wait_for_other_migrations(connection: Connection) -> None:
    """Let one migration at a time be at work on a database, until its transaction ends.

    SQLite has taken its lock when the transaction began.
    """
    match connection.dialect.name:
        case "postgresql":
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('watchkeeper'))")
            # Who waits for a table keeps all others from it who come later.
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        case "mysql" | "mariadb":  # held by the connection, which migrations do not return
            name = "LEFT(CONCAT('watchkeeper.', DATABASE()), 64)"
            connection.exec_driver_sql(f"SELECT GET_LOCK({name}, {PATIENT_SECONDS - 10})")


def _sqlite(url: URL, patient: bool) -> Engine:
    seconds = PATIENT_SECONDS if patient else LOCK_SECONDS
    # A connection stays open: closing the last one makes SQLite write its whole log back.
    engine = create_engine(url, pool_size=1, connect_args={"timeout": seconds}, **_common())

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # Several processes write: readers must not block them, and a transaction must
        # take its lock at once, or two that read before they write would deadlock.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL, patient: bool) -> Engine:
    limits = {
        "lock_timeout": LOCK_SECONDS,
        "statement_timeout": PATIENT_SECONDS if patient else STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": PATIENT_SECONDS,
    }
    options = " ".join(f"-c {name}={seconds}s" for name, seconds in limits.items())
    given = url.query.get("options", "")
    engine = create_engine(
        url.difference_update_query(["options"]),
        connect_args={"connect_timeout": CONNECT_SECONDS, "options": f"{given} {options}".strip()},
        **_common(),
        **_pool(),
    )
    seconds = PATIENT_SECONDS if patient else ANSWER_SECONDS

    @event.listens_for(engine, "do_connect")
    def on_connect(_dialect: object, _record: object, arguments: Any, parameters: Any) -> Any:
        from watchkeeper.ledger.bounded import bounded_connection  # noqa: PLC0415 - its driver

        return bounded_connection(seconds).connect(*arguments, **parameters)

    return engine


def _mysql(url: URL, patient: bool) -> Engine:
    seconds = PATIENT_SECONDS if patient else ANSWER_SECONDS
    packet = [16 * 2**20]

    def encode(value: object) -> str:
        # A statement above the limit ends the connection and would be tried for ever. Quotes are
        # escaped on the way; inputs and outputs share a statement.
        text = _encode(value)
        size = len(text.encode()) + text.count('"') + text.count("\\")
        if size > packet[0] // 2 - 2**16:
            raise ValueError(
                f"{size} bytes of JSON are more than the database takes in one statement; "
                f"raise its max_allowed_packet, which is {packet[0]}"
            )
        return text

    engine = create_engine(
        url,
        # Two sidecars that store the same request must not wait for the gaps between ids.
        isolation_level="READ COMMITTED",
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": seconds,
            "write_timeout": seconds,
            # The first is for rows, the second for tables.
            "init_command": f"SET SESSION innodb_lock_wait_timeout={LOCK_SECONDS}, "
            f"SESSION lock_wait_timeout={LOCK_SECONDS}",
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


def _common() -> dict[str, Any]:
    return {
        "hide_parameters": True,
        # What is no number becomes null: NaN is no JSON, and PostgreSQL and MariaDB refuse it.
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
        return json.loads(text)  # an earlier release wrote NaN
