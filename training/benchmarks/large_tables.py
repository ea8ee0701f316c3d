"""Time and peak memory of a training run, by the number of rows, on one core.

    make bench-training                       # writes the page of the documentation
    make bench-training ROWS="100000 300000"  # measures other tables, and writes nothing

The table has ten columns (eight numbers, an integer, a category) in SQLite. The estimator is
histogram boosting, once of scikit-learn. A run reads, splits, fits, converts, verifies, judges,
seals and loads, as `watchkeeper train` does; it does not register. Each run is a process of its
own, so that its peak memory is that of the run, libraries included. The table is made before.
"""

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import OrdinalEncoder

from watchkeeper.core.signature import Column
from watchkeeper.training.declaration import Gate, Head, Model, Parameters, Source
from watchkeeper.training.history import read_history
from watchkeeper.training.read import TrainingInput
from watchkeeper.training.recent import Recent
from watchkeeper.training.run import TrainingRequest, make_version
from watchkeeper.training.sampler import Sampler

GRADES = ("low", "middle", "high")
NUMBERS = tuple(f"sensor_{number}" for number in range(8))
PART_ROWS = 50_000
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
PAGE = Path(__file__).resolve().parents[2] / "docs/explanation/training-benchmarks.md"
SECONDS = 3600.0


def features(_: Parameters) -> ColumnTransformer:
    """Return the features."""
    encoder = OrdinalEncoder(categories=[list(GRADES)])
    numbers = ("numbers", "passthrough", [*NUMBERS, "count"])
    return ColumnTransformer([numbers, ("grade", encoder, ["grade"])])


MODEL = Model(
    name="large-table",
    source=Source("SELECT * FROM readings", id="id"),
    columns=(
        *(Column(name, "FP64") for name in NUMBERS),
        Column("count", "INT64", minimum=0),
        Column("grade", "BYTES", categories=GRADES),
    ),
    heads=(
        Head(
            "failure",
            features,
            lambda parameters: HistGradientBoostingClassifier(random_state=parameters.seed),
            label="failed",
        ),
    ),
    gate=Gate(floors={"roc_auc": 0.6}),
)


def readings(rows: int) -> Iterator[pd.DataFrame]:
    """Yield the table in parts."""
    for start in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - start)
        random = np.random.default_rng(start)
        table = {name: random.normal(100.0, 20.0, count).round(3) for name in NUMBERS}
        grade = random.integers(0, len(GRADES), count)
        risk = (table["sensor_0"] + table["sensor_1"] - 200.0) / 20.0 + 0.5 * grade
        yield pd.DataFrame(
            {
                "id": np.arange(start + 1, start + count + 1),
                **table,
                "count": random.integers(0, 5000, count),
                "grade": np.array(GRADES, dtype=object)[grade],
                "failed": (risk + random.normal(0.0, 1.0, count) > 3.0).astype(int),
            }
        )


def store(rows: int, file: Path) -> None:
    """Write the table."""
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        for part in readings(rows):
            part.to_sql("readings", connection, index=False, if_exists="append")
    engine.dispose()


def run(file: Path) -> dict[str, float]:
    """Train on the table; return rows, CPU seconds and the peak of the resident memory in MiB."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    started = time.process_time()  # other processes of the machine do not count
    sampler = Sampler(MODEL.split)
    history = read_history(f"sqlite:///{file}", MODEL, sampler)
    read = time.process_time()
    no_rows = history.where(np.zeros(len(history), dtype=bool))
    inputs = TrainingInput(history, Recent(no_rows, None), None, sampler.sample)
    request = TrainingRequest(MODEL, "large", "a benchmark", Parameters())
    with tempfile.TemporaryDirectory() as folder:
        made = make_version(request, inputs, Path(folder) / "version")
    if not made.report.passed:
        raise RuntimeError(made.report.reason)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ended = time.process_time()
    used = {"read": read - started, "seconds": ended - started, "peak_mib": peak}
    return {"rows": len(history), **used}


TEXT = """\
# Training on large tables

`make bench-training` writes this page.

A training run reads, splits, fits, converts, verifies, judges and seals one version, on one core.
It is a process of its own, and its peak memory includes all libraries (about 320 MiB). The table
has ten columns: eight numbers, an integer and a category. It is in SQLite. The estimator is
scikit-learn's histogram boosting with its defaults. The run does not register the version, which
takes as long as MLflow needs to store its files. Seconds are CPU time.

{table}

A table with more than {limit:,} rows is read as a sample, see
[large tables](../how-to/your-own-model.md#large-tables). Reading takes time for all rows, and
memory for the sample only.

Machine: one core of {cores}, {system}, Python {python}.
"""


def page(table: str) -> str:
    """Return the page of the documentation."""
    system = f"{platform.system()} {platform.release()}"
    python = platform.python_version()
    limit = MODEL.split.history_rows
    return TEXT.format(table=table, limit=limit, cores=os.cpu_count(), system=system, python=python)


def main() -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure training runs by their rows.")
    parser.add_argument(
        "rows", type=int, nargs="*", help="of each table; without any, the page is written"
    )
    parser.add_argument("--table", type=Path, help="train on this file once, and print JSON")
    parser.add_argument("--stages", action="store_true", help="log each stage")
    options = parser.parse_args()
    if options.stages:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        logging.getLogger("watchkeeper").setLevel(logging.INFO)
    if options.table:
        print(json.dumps(run(options.table)))
        return 0
    lines = [
        "| rows of the table | rows read | reading, s | whole run, s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for rows in options.rows or ROWS:
            file = Path(folder) / f"{rows}.db"
            store(rows, file)
            more = ["--stages"] if options.stages else []
            done = subprocess.run(
                [sys.executable, __file__, "--table", str(file), *more],
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                timeout=SECONDS,
                check=True,
            )
            found = json.loads(done.stdout)
            figures = [found[name] for name in ("rows", "read", "seconds", "peak_mib")]
            lines.append(f"| {rows:,} | {' | '.join(f'{value:,.0f}' for value in figures)} |")
    table = "\n".join(lines)
    print(table)
    if not options.rows:
        PAGE.write_text(page(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
