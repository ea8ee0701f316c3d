"""The operational table of the machines, and their history in it."""

from typing import Any, Final

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, func, insert, select

from ai4i_failure.plant.machines import MEASUREMENTS, Fleet, Readings
from ai4i_failure.plant.scenarios import STEADY, apply
from watchkeeper.demo.plants import history_times, open_database

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
    """Store the history unless the table has rows; return the number of rows in the table.

    The history is stored in one transaction, so an interrupted call leaves nothing behind.

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
    """Return the machines' history before any drift."""
    return apply(Fleet(SEED).readings(rows), STEADY)


def _rows(history: Readings) -> list[dict[str, Any]]:
    names = ("machine", *MEASUREMENTS, "machine_failure")
    columns = [history[name].tolist() for name in names]
    times = history_times(len(history["type"])).tolist()
    return [
        {"id": number, "time": time, **dict(zip(names, row, strict=True))}
        for number, (time, *row) in enumerate(zip(times, *columns, strict=True), start=1)
    ]
