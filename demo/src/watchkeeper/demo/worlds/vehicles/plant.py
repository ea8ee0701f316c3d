"""The plant's operational tables: what a manufacturing execution system would keep."""

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

from watchkeeper.demo.worlds import open_database, past
from watchkeeper.demo.worlds.vehicles.assembly import LOTS, STATIONS, Assembly, Built
from watchkeeper.demo.worlds.vehicles.scenarios import STEADY

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
    """Store the past unless there is one already; return how many vehicles there are.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
    """
    engine = open_database(url)
    try:
        _metadata.create_all(engine)
        with engine.begin() as connection:
            known = newest(connection)
            if not known:
                built = Assembly(SEED).build(count, STEADY)
                times = past(count)
                ids = store(connection, built, times)
                finish(connection, zip(ids, times.tolist(), strict=True))
                settle(connection, zip(ids, built.claims.tolist(), strict=True))
            return known or count
    finally:
        engine.dispose()


def newest(connection: Connection) -> int:
    """Return the highest vehicle id, 0 if there is none."""
    return int(connection.execute(select(func.coalesce(func.max(vehicles.c.id), 0))).scalar_one())


def store(connection: Connection, built: Built, times: Any) -> list[int]:
    """Add vehicles that are being built, with all that was recorded of them; return their ids.

    ``times`` (vehicles,) are those of their last stations, in seconds since 1970.
    """
    count = len(built.claims)
    before = newest(connection)
    ids = np.arange(before + 1, before + count + 1)
    visits = np.repeat(ids, STATIONS)
    # A station id follows from the vehicle and the station, so that they rise without asking.
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


def finish(connection: Connection, done: Iterable[tuple[int, float]]) -> None:
    """Note when vehicles were completed: pairs of id and time."""
    _update(connection, "completed", done)


def settle(connection: Connection, known: Iterable[tuple[int, int]]) -> None:
    """Note whether a claim came: pairs of id and 0 or 1."""
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
