"""The plant's operational tables, as in a manufacturing execution system."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)

from warranty_risk.plant.assembly import LOTS, STATIONS, Assembly, Built
from warranty_risk.plant.scenarios import STEADY
from watchkeeper.demo.plants import history_times, open_database

VEHICLES: Final = 8_000
SEED: Final = 1913

_metadata = MetaData()
vehicles = Table(
    "vehicles",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # rises in time of completion
    Column("line", String(16), nullable=False),
    Column("completed", Float(53)),  # seconds since 1970; empty until it is built
    Column("warranty_claim", Integer),  # 0 or 1; empty until it is known
)
stations = Table(
    "stations",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("vehicle_id", Integer, nullable=False),
    Column("station", String(8), nullable=False),
    Column("time", Float(53), nullable=False),  # seconds since 1970
    Column("cycle_time", Float(53), nullable=False),  # s
    Column("torque", Float(53), nullable=False),  # Nm
    Column("specified_torque", Float(53), nullable=False),  # Nm
    Column("errors", Integer, nullable=False),
    Column("rework", Integer, nullable=False),  # 0 or 1
    Index("stations_by_vehicle", "vehicle_id"),
)
vendors = Table(
    "vendors",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("vehicle_id", Integer, nullable=False),
    Column("vendor", String(16), nullable=False),
    Column("parts", Integer, nullable=False),
    Column("defects", Integer, nullable=False),
    Index("vendors_by_vehicle", "vehicle_id"),
)


def seed(url: str, count: int = VEHICLES) -> int:
    """Store the history unless there are vehicles; return the number of vehicles.

    The history is stored in one transaction, so an interrupted call leaves nothing behind.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
    """
    engine = open_database(url)
    try:
        _metadata.create_all(engine)
        with engine.begin() as connection:
            known = last_id(connection)
            if not known:
                built = Assembly(SEED).build(count, STEADY)
                times = history_times(count)
                ids = store(connection, built, times)
                store_completed(connection, zip(ids, times.tolist(), strict=True))
                store_claims(connection, zip(ids, built.claims.tolist(), strict=True))
            return known or count
    finally:
        engine.dispose()


def last_id(connection: Connection) -> int:
    """Return the highest vehicle id, 0 if there is none."""
    return int(connection.execute(select(func.coalesce(func.max(vehicles.c.id), 0))).scalar_one())


def store(connection: Connection, built: Built, times: Any) -> list[int]:
    """Add vehicles that are being built, with their records; return their ids.

    ``times`` (vehicles,) are the times of their last stations, in seconds since 1970.
    """
    count = len(built.claims)
    before = last_id(connection)
    ids = np.arange(before + 1, before + count + 1)
    visits = np.repeat(ids, STATIONS)
    # A record's id follows from the vehicle's id, so the database need not be asked for the last.
    _insert(connection, vehicles, {"id": ids, **built.vehicles})
    _insert(
        connection,
        stations,
        {
            "id": np.arange(before * STATIONS + 1, (before + count) * STATIONS + 1),
            "vehicle_id": visits,
            "time": np.repeat(times, STATIONS) - np.tile(np.arange(STATIONS)[::-1] * 1.0, count),
            **built.stations,
        },
    )
    _insert(
        connection,
        vendors,
        {
            "id": np.arange(before * LOTS + 1, (before + count) * LOTS + 1),
            "vehicle_id": np.repeat(ids, LOTS),
            **built.vendors,
        },
    )
    return [int(number) for number in ids]


def store_completed(connection: Connection, done: Iterable[tuple[int, float]]) -> None:
    """Store when vehicles were completed: pairs of id and time."""
    _update(connection, "completed", done)


def store_claims(connection: Connection, known: Iterable[tuple[int, int]]) -> None:
    """Store whether a claim came: pairs of id and 0 or 1."""
    _update(connection, "warranty_claim", known)


def read_features(
    connection: Connection, names: Sequence[str], first: int, last: int
) -> dict[int, dict[str, Any]]:
    """Return the aggregated features of the vehicles from ``first`` to ``last``, by id."""
    table = Table("vehicle_features", MetaData(), autoload_with=connection)
    columns = [table.c[name] for name in ("vehicle_id", *names)]
    query = select(*columns).where(table.c.vehicle_id.between(first, last))
    return {
        row.vehicle_id: {name: getattr(row, name) for name in names}
        for row in connection.execute(query)
    }


def _insert(connection: Connection, table: Table, columns: dict[str, Any]) -> None:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    connection.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in rows])


def _update(connection: Connection, column: str, pairs: Iterable[tuple[int, float]]) -> None:
    values = [{"vehicle": number, "value": value} for number, value in pairs]
    if values:
        statement = update(vehicles).where(vehicles.c.id == bindparam("vehicle"))
        connection.execute(statement.values({column: bindparam("value")}), values)
