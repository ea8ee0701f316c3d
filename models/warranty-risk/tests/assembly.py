"""A small assembly line for the tests of the model: tables of vehicles, stations and vendors.

It is independent of the simulated plant, so that the model's refresh is tested on other data.
"""

import numpy as np
import pandas as pd
import sqlalchemy
from sqlalchemy import Connection, text
from warranty_risk.model import COLUMNS

MEASURED = [column.name for column in COLUMNS]

# The refresh relies on these columns and on the keys, not on the exact types.
TABLES = """
CREATE TABLE vehicles (
    id INTEGER NOT NULL PRIMARY KEY, line VARCHAR(20) NOT NULL, completed DOUBLE PRECISION,
    warranty_claim INTEGER
);
CREATE TABLE stations (
    id INTEGER NOT NULL PRIMARY KEY, vehicle_id INTEGER NOT NULL, station VARCHAR(20) NOT NULL,
    time DOUBLE PRECISION NOT NULL, cycle_time DOUBLE PRECISION NOT NULL,
    torque DOUBLE PRECISION NOT NULL, specified_torque DOUBLE PRECISION NOT NULL,
    errors INTEGER NOT NULL, rework INTEGER NOT NULL
);
CREATE TABLE vendors (
    id INTEGER NOT NULL PRIMARY KEY, vehicle_id INTEGER NOT NULL, vendor VARCHAR(20) NOT NULL,
    parts INTEGER NOT NULL, defects INTEGER NOT NULL
);
CREATE INDEX stations_by_vehicle ON stations (vehicle_id);
CREATE INDEX vendors_by_vehicle ON vendors (vehicle_id)
"""

Tables = dict[str, pd.DataFrame]


def built(count: int, first: int = 1, seed: int = 0) -> Tables:
    """Build vehicles numbered from ``first`` on; one in fifty is an anomaly."""
    random = np.random.default_rng(seed)
    stress = np.repeat(random.gamma(2.0, 0.5, count), 20)
    anomaly = np.repeat(random.random(count) < 0.02, 20)
    visits = 20 * count
    ids = np.arange(first, first + count)
    specified = np.tile(np.linspace(80.0, 116.0, 20), count)
    stations = pd.DataFrame(
        {
            "id": np.arange(20 * (first - 1) + 1, 20 * (first - 1) + 1 + visits),
            "vehicle_id": np.repeat(ids, 20),
            "station": np.tile([f"s{n:02d}" for n in range(20)], count),
            "time": 1e9 + np.arange(visits, dtype=float),
            "cycle_time": random.normal(50.0, 1.5 + 0.3 * stress + 4.0 * anomaly, visits),
            "torque": specified + random.normal(0.0, 4.0 + stress + 10.0 * anomaly, visits),
            "specified_torque": specified,
            "errors": random.poisson(0.12 * stress, visits),
            "rework": (random.random(visits) < 0.05 * stress).astype(int),
        }
    )
    parts = np.full(4 * count, 50)
    vendors = pd.DataFrame(
        {
            "id": np.arange(4 * (first - 1) + 1, 4 * (first - 1) + 1 + 4 * count),
            "vehicle_id": np.repeat(ids, 4),
            "vendor": np.tile(["north", "east", "south", "west"], count),
            "parts": parts,
            "defects": random.binomial(parts, 0.08 * np.repeat(random.gamma(9, 1 / 9, count), 4)),
        }
    )
    features = recomputed(stations, vendors)
    risk = (
        0.8 * (features["total_error_count"] - 2.5)
        + 12.0 * (features["vendor_defect_ratio"] - 0.08)
        + 0.9 * (features["torque_deviation"] - 4.0)
    )
    claims = random.random(count) < 1.0 / (1.0 + np.exp(4.5 - risk.to_numpy()))
    vehicles = pd.DataFrame(
        {
            "id": ids,
            "line": np.where(ids % 2, "one", "two"),
            "completed": 1e9 + 60.0 * ids,
            "warranty_claim": claims.astype(int),
        }
    )
    return {"vehicles": vehicles, "stations": stations, "vendors": vendors}


def recomputed(stations: pd.DataFrame, vendors: pd.DataFrame) -> pd.DataFrame:
    """Compute the features by vehicle with pandas: what the refresh must arrive at."""
    off = (stations["torque"] - stations["specified_torque"]).abs()
    visits = stations.assign(off=off).groupby("vehicle_id")
    lots = vendors.groupby("vehicle_id")[["defects", "parts"]].sum()
    return pd.DataFrame(
        {
            "total_error_count": visits["errors"].sum(),
            "avg_cycle_time": visits["cycle_time"].mean(),
            "cycle_time_variance": visits["cycle_time"].var(ddof=0),
            "rework_ratio": visits["rework"].mean(),
            "vendor_defect_ratio": lots["defects"] / lots["parts"],
            "avg_torque": visits["torque"].mean(),
            "torque_deviation": visits["off"].mean(),
        }
    )


def create(url: str) -> None:
    """Create the three tables, without vehicle_features."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for statement in TABLES.split(";"):
            connection.execute(text(statement))
    engine.dispose()


def append(url: str, tables: Tables) -> None:
    """Add rows to the tables."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        write(connection, tables)
    engine.dispose()


def write(connection: Connection, tables: Tables) -> None:
    """Add rows to the tables on a connection."""
    for name, table in tables.items():
        table.to_sql(name, connection, if_exists="append", index=False, chunksize=500)


def features(url: str) -> pd.DataFrame:
    """Read vehicle_features, by vehicle."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        table = pd.read_sql(text("SELECT * FROM vehicle_features ORDER BY vehicle_id"), connection)
    engine.dispose()
    return table.set_index("vehicle_id")


def change(url: str, *statements: str) -> None:
    """Execute statements in one transaction."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
