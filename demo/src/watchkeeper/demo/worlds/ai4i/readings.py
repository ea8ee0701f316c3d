"""The operational table of the machines: their past, as it was measured."""

from typing import Any, Final

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, func, insert, select

from watchkeeper.demo.worlds import open_database, past
from watchkeeper.demo.worlds.ai4i.machines import MEASUREMENTS, Fleet, Readings
from watchkeeper.demo.worlds.ai4i.scenarios import STEADY, played

ROWS: Final = 10_000
SEED: Final = 2020

_metadata = MetaData()
machine_readings = Table(
    "machine_readings",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # rises in time
    Column("machine", String(32), nullable=False),
    Column("time", Float(53), nullable=False),  # seconds since 1970
    Column("type", String(1), nullable=False),  # L, M or H
    Column("air_temperature", Float(53), nullable=False),  # K
    Column("process_temperature", Float(53), nullable=False),  # K
    Column("rotational_speed", Float(53), nullable=False),  # rpm
    Column("torque", Float(53), nullable=False),  # Nm
    Column("tool_wear", Float(53), nullable=False),  # min
    Column("machine_failure", Integer, nullable=False),  # 0 or 1
)


def seed(url: str, history: Readings) -> int:
    """Store the history unless there is one already; return how many rows there are.

    All of it comes in one transaction: cut off, there is nothing, and the next call begins anew.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
    """
    engine = open_database(url)
    try:
        _metadata.create_all(engine)
        with engine.begin() as connection:
            known = connection.execute(
                select(func.count()).select_from(machine_readings)
            ).scalar_one()
            if not known:
                connection.execute(insert(machine_readings), _rows(history))
            return int(known) or len(history["type"])
    finally:
        engine.dispose()


def generated_history(rows: int = ROWS) -> Readings:
    """Return the machines' past, before anything changed."""
    return played(Fleet(SEED).readings(rows), STEADY)


def _rows(history: Readings) -> list[dict[str, Any]]:
    names = ("machine", *MEASUREMENTS, "machine_failure")
    columns = [history[name].tolist() for name in names]
    times = past(len(history["type"])).tolist()
    return [
        {"id": number, "time": time, **dict(zip(names, row, strict=True))}
        for number, (time, *row) in enumerate(zip(times, *columns, strict=True), start=1)
    ]
