"""Fill the operational database with history, once: ``python -m watchkeeper.demo.seed``."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    make_url,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.demo.machines import MEASUREMENTS, Fleet, Readings
from watchkeeper.demo.scenarios import STEADY, played
from watchkeeper.demo.table import TableError, read_table

ROWS: Final = 10_000
SEED: Final = 2020
FIRST: Final = 1_767_225_600.0  # the first reading: 2026-01-01
SECONDS_APART: Final = 60.0

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


def source_url() -> str:
    """Return the operational database's URL: WATCHKEEPER_SOURCE_URL, or a file in the home."""
    home = Path(os.environ.get("WATCHKEEPER_HOME", ".watchkeeper")).resolve()
    return os.environ.get("WATCHKEEPER_SOURCE_URL", f"sqlite:///{home / 'operational.db'}")


def seed(url: str, history: Readings) -> int:
    """Store the history unless there is one already; return how many rows there are.

    All of it comes in one transaction: cut off, there is nothing, and the next call begins anew.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
    """
    engine = _engine(url)
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


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return create_engine(parsed)


def _rows(history: Readings) -> list[dict[str, Any]]:
    names = ("machine", *MEASUREMENTS, "machine_failure")
    columns = [history[name].tolist() for name in names]
    return [
        {"id": number, "time": FIRST + number * SECONDS_APART, **dict(zip(names, row, strict=True))}
        for number, row in enumerate(zip(*columns, strict=True), start=1)
    ]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m watchkeeper.demo.seed", description=__doc__)
    parser.add_argument("--data", type=Path, help="the AI4I 2020 table (CSV) as history")
    arguments = parser.parse_args()
    url = source_url()
    try:
        history = read_table(arguments.data) if arguments.data else generated_history()
        rows = seed(url, history)
    except (TableError, SQLAlchemyError) as error:
        print(f"seed: {error}", file=sys.stderr)
        return 1
    print(f"{rows} readings in {make_url(url).render_as_string(hide_password=True)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
