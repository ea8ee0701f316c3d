"""What a database holds of a fleet, to compare it with another one."""

from typing import Any

import sqlalchemy
from sensor_fleet.plant import tables
from sqlalchemy import select

SEED = 5  # of the history
MACHINES = 12
HISTORY = 20  # turns


def rows(url: str, table: sqlalchemy.Table) -> list[dict[str, Any]]:
    """Read all rows of a table, in the order of their ids."""
    engine = sqlalchemy.create_engine(url)
    (key,) = table.primary_key.columns
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(select(table).order_by(key)).mappings()]
    engine.dispose()
    return found


def everything(url: str) -> dict[str, list[dict[str, Any]]]:
    """Read all tables of a fleet."""
    return {name: rows(url, table) for name, table in tables.metadata.tables.items()}
