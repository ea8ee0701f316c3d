"""Tables of batches and their samples: what the model ``batch-quality`` aggregates."""

import numpy as np
import pandas as pd
import sqlalchemy
from sqlalchemy import text

TABLES = """
CREATE TABLE batches (id INTEGER NOT NULL PRIMARY KEY, rejected INTEGER);
CREATE TABLE samples (
    id INTEGER NOT NULL PRIMARY KEY, batch_id INTEGER NOT NULL, pressure DOUBLE PRECISION NOT NULL
);
CREATE INDEX samples_by_batch ON samples (batch_id)
"""
SAMPLES = 5  # of a batch


def create(url: str) -> None:
    """Create the two tables, without batch_features."""
    execute(url, *TABLES.split(";"))


def append(url: str, count: int, first: int = 1) -> None:
    """Add batches numbered from ``first`` on, with their samples."""
    random = np.random.default_rng(first)
    ids = np.arange(first, first + count)
    batches = pd.DataFrame({"id": ids, "rejected": ids % 2})
    samples = pd.DataFrame(
        {
            "id": np.arange(SAMPLES * (first - 1) + 1, SAMPLES * (first + count - 1) + 1),
            "batch_id": np.repeat(ids, SAMPLES),
            "pressure": random.normal(8.0, 1.0, SAMPLES * count),
        }
    )
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        batches.to_sql("batches", connection, if_exists="append", index=False)
        samples.to_sql("samples", connection, if_exists="append", index=False)
    engine.dispose()


def features(url: str) -> pd.DataFrame:
    """Read batch_features, by batch."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        table = pd.read_sql(text("SELECT * FROM batch_features ORDER BY batch_id"), connection)
    engine.dispose()
    return table.set_index("batch_id")


def execute(url: str, *statements: str) -> None:
    """Execute statements in one transaction."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
