"""Further datatypes, from the table to the files of a version, and what a pipeline gets."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
import sqlalchemy
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import OneHotEncoder

from watchkeeper.core.signature import Column
from watchkeeper.core.version import read_example
from watchkeeper.training import CannotTrainError
from watchkeeper.training.check import check
from watchkeeper.training.declaration import Gate, Head, Model, Source
from watchkeeper.training.history import read_history
from watchkeeper.training.run import Made

COLUMNS = (
    Column("load", "FP32", minimum=0.0, maximum=0.1),
    Column("count", "INT32"),
    Column("ready", "BOOL"),
    Column("seen_at", "TIMESTAMP", nullable=True),
    Column("site", "BYTES", categories=("north", "south"), unseen="accept"),
)
NUMBERS = [column.name for column in COLUMNS if column.datatype != "BYTES"]


def features(unknown: str = "ignore") -> ColumnTransformer:
    known = [["north", "south"]]
    encoder = OneHotEncoder(categories=known, handle_unknown=unknown, sparse_output=False)
    return ColumnTransformer([("site", encoder, ["site"]), ("rest", "passthrough", NUMBERS)])


def model(unknown: str = "ignore") -> Model:
    head = Head(
        "risk",
        features=lambda _: features(unknown),
        estimator=lambda _: HistGradientBoostingClassifier(max_iter=20, random_state=0),
        label="failed",
    )
    source = Source(query="SELECT * FROM pump_readings", id="id")
    return Model(name="typed", source=source, columns=COLUMNS, heads=(head,), gate=Gate())


def table(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    load, count = random.uniform(0.0, 0.1, rows), random.integers(-9, 2000, rows)
    ready = random.random(rows) < 0.5
    times = pd.date_range("2026-01-01", periods=rows, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")
    risk = 20 * load + count / 1000 + ready + random.normal(0, 0.2, rows)
    return pd.DataFrame(
        {
            "id": range(rows),
            "load": load,
            "count": count,
            "ready": ready,
            "seen_at": pd.Series(times, dtype=object).mask(random.random(rows) < 0.1, None),
            "site": random.choice(["north", "south"], rows),
            "failed": (risk > 2.5).astype(int),
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    folder = tmp_path_factory.mktemp("typed")
    url = pumps.database(folder / "source.db", table(1500))
    return folder / "version", check(model(), url, folder / "version")


def test_a_version_with_every_datatype_has_an_exact_fast_form(made: tuple[Path, Made]) -> None:
    _, found = made
    assert found.manifest.heads[0].onnx, found.report.consequences
    assert found.manifest.signature.inputs == COLUMNS


def test_an_example_has_values_as_requests_have_them(made: tuple[Path, Made]) -> None:
    inputs = read_example(made[0]).inputs
    assert {type(value) for value in inputs["ready"]} <= {bool}
    assert all(value is None or value.endswith("Z") for value in inputs["seen_at"])
    assert all(value == float(np.float32(value)) for value in inputs["load"])


def test_a_pipeline_gets_doubles_integers_and_seconds(tmp_path: Path) -> None:
    rows = read_history(pumps.database(tmp_path / "source.db", table(200)), model()).columns
    assert {name: rows[name].dtype for name in NUMBERS} == {
        "load": np.float64,
        "count": np.int64,
        "ready": np.int64,
        "seen_at": np.float64,
    }
    assert (rows["load"] == rows["load"].astype(np.float32)).all()
    first = rows["seen_at"].dropna().iloc[0]
    assert datetime.fromtimestamp(first, UTC).year == 2026


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("ready", 2, "column 'ready' holds '2' (row with id 9); BOOL is true or false"),
        ("count", 0.5, "column 'count' holds '0.5' (row with id 9); INT32 has no fract"),
        ("seen_at", "soon", "column 'seen_at' holds 'soon' (row with id 9); a TIMESTAMP is a time"),
    ],
)
def test_a_value_of_another_type_is_refused(
    tmp_path: Path, column: str, value: Any, said: str
) -> None:
    wrong = table(200).astype(object)
    wrong.loc[9, column] = value
    with pytest.raises(CannotTrainError) as found:
        read_history(pumps.database(tmp_path / "source.db", wrong), model())
    assert str(found.value).startswith(f"history of typed: {said}")


def test_integers_beyond_32_bits_and_float_limits_are_out_of_range(tmp_path: Path) -> None:
    wrong = table(200)
    wrong.loc[9, "count"] = 2**31
    wrong.loc[8, "load"] = 0.1  # the limit itself, which FP32 rounds up
    rows = read_history(pumps.database(tmp_path / "source.db", wrong), model())
    assert len(rows) == 199
    assert 9 not in rows.key


def test_times_of_a_database_and_seconds_are_read(tmp_path: Path) -> None:
    url = pumps.database(tmp_path / "source.db", table(200).drop(columns="seen_at"))
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE pump_readings ADD seen_at"))
        connection.execute(sqlalchemy.text("UPDATE pump_readings SET seen_at = 1.5"))
        later = "UPDATE pump_readings SET seen_at = '1970-01-01 00:01:00' WHERE id = 0"
        connection.execute(sqlalchemy.text(later))
    engine.dispose()
    assert read_history(url, model()).columns["seen_at"].tolist()[:2] == [60.0, 1.5]


def test_an_unseen_category_is_learned_from_and_must_have_a_score(tmp_path: Path) -> None:
    other = table(1500)
    url = pumps.database(tmp_path / "source.db", other)
    with pytest.raises(CannotTrainError, match=r"head 'risk': cannot score a row with an unseen"):
        check(model("error"), url, tmp_path / "version")
    other.loc[9, "site"] = "west"
    rows = read_history(pumps.database(tmp_path / "more.db", other), model())
    assert rows.columns["site"][9] == "west"
    closed = tuple(msgspec.structs.replace(c, unseen="refuse") for c in COLUMNS)
    with pytest.raises(CannotTrainError, match="'west'"):
        read_history(
            f"sqlite:///{tmp_path}/more.db", msgspec.structs.replace(model(), columns=closed)
        )
