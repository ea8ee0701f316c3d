"""Missing values of nullable columns, from the table to the files of a version."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
import sqlalchemy
from pump_failure import GRADES, MODEL
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.signature import MISSING_TEXT, missing_name
from watchkeeper.core.version import REFERENCE, read_baseline, read_example
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState
from watchkeeper.pipeline import load
from watchkeeper.training import CannotTrainError, offline
from watchkeeper.training.check import check
from watchkeeper.training.declaration import DeclarationError, Head, Model, Search
from watchkeeper.training.history import read_history
from watchkeeper.training.recent import read_recent
from watchkeeper.training.run import Made

NULLABLE = ("grade", "load", "wear")


def features(numbers: Any = "passthrough", **encoder: Any) -> ColumnTransformer:
    known = {"categories": [["", *GRADES]], **encoder}
    return ColumnTransformer(
        [
            ("grade", OneHotEncoder(sparse_output=False, **known), ["grade"]),
            ("numbers", numbers, pumps.NUMERIC),
        ]
    )


def model(
    estimator: Callable[[Any], BaseEstimator],
    steps: Callable[[Any], BaseEstimator] = lambda _: features(),
) -> Model:
    """The pumps with nullable columns, and without SMOTE, which cannot take missing values."""
    columns = tuple(
        msgspec.structs.replace(column, nullable=column.name in NULLABLE)
        for column in MODEL.columns
    )
    head = Head("failure_probability", features=steps, estimator=estimator, label="failed")
    return msgspec.structs.replace(
        MODEL, columns=columns, heads=(head,), balance=None, search=Search()
    )


def boosting(_: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=40, random_state=0)


def with_gaps(rows: int, seed: int = 0) -> pd.DataFrame:
    table = pumps.readings(rows, seed)
    random = np.random.default_rng(seed + 1)
    for name in NULLABLE:
        table[name] = table[name].mask(random.random(rows) < 0.1, None)
    return table


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pumps.database(tmp_path_factory.mktemp("gaps") / "source.db", with_gaps(4000))


@pytest.fixture(scope="module")
def boosted(gaps: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    folder = tmp_path_factory.mktemp("boosted") / "version"
    return folder, check(model(boosting), gaps, folder)


def test_rows_with_missing_values_are_kept(gaps: str) -> None:
    declared = model(boosting)
    rows = read_history(gaps, declared)
    assert len(rows) == 4000
    assert rows.columns["load"].isna().mean() == pytest.approx(0.1, abs=0.02)
    assert (rows.columns["grade"] == MISSING_TEXT).mean() == pytest.approx(0.1, abs=0.02)
    assert len(read_history(gaps, MODEL)) < 3200, "none of them, if the columns are not nullable"


def test_a_version_passes_its_gate_with_an_exact_fast_form(boosted: tuple[Path, Made]) -> None:
    _, made = boosted
    assert made.report.passed, made.report.reason
    assert made.manifest.heads[0].onnx
    assert made.report.consequences == []
    assert [c.name for c in made.manifest.signature.inputs if c.nullable] == list(NULLABLE)


def test_a_file_of_a_version_has_null_for_a_missing_value(boosted: tuple[Path, Made]) -> None:
    folder, made = boosted
    example = read_example(folder)
    for column in made.manifest.signature.inputs:
        assert (
            column.listed(column.array(example.inputs[column.name]))
            == (example.inputs[column.name])
        )
    assert "NaN" not in (folder / "example.json").read_text()
    assert set(read_baseline(folder)) == {*pumps.NUMERIC, "failure_probability"}
    table = pd.read_parquet(folder / REFERENCE)
    for name in NULLABLE:
        gone = table[missing_name(name)]
        assert (table[name].isna() == (gone == 1.0)).all()
        assert gone.mean() == pytest.approx(0.1, abs=0.02)
    described = (folder / "MLmodel").read_text()
    assert json.dumps({"type": "double", "name": "load", "required": False})[1:-1] in described


def test_offline_predictions_take_null(boosted: tuple[Path, Made]) -> None:
    folder, _ = boosted
    row = {name: [None] if name in NULLABLE else [1.0] for name in MODEL.names}
    answered = offline.answer(folder, row)
    assert 0.0 <= answered["failure_probability"][0] <= 1.0
    columns = {c.name: c.array(row[c.name]) for c in load(folder).manifest.signature.inputs}
    assert load(folder).scores(columns)["failure_probability"] == answered["failure_probability"]


@pytest.mark.parametrize(
    ("estimator", "steps", "said"),
    [
        (
            lambda _: LogisticRegression(),
            lambda _: features(),
            "head 'failure_probability' of pump-failure: cannot fit [0-9]+ rows of history: "
            "ValueError: Input X contains NaN; 'load', 'wear': add an imputer to the features "
            r"\(SimpleImputer\), or choose an estimator that takes missing values.*; 'grade': a "
            "missing value is the empty text",
        ),
        (
            boosting,
            lambda _: features(categories=[list(GRADES)]),
            r"cannot fit .*Found unknown categories \[''\] in column 0 during fit.*'grade': a "
            "missing value is the empty text, which an encoder must know",
        ),
    ],
)
def test_a_pipeline_that_cannot_take_missing_values_is_told_what_to_do(
    gaps: str, tmp_path: Path, estimator: Any, steps: Any, said: str
) -> None:
    with pytest.raises(CannotTrainError, match=said) as found:
        check(model(estimator, steps), gaps, tmp_path / "version")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("estimator", [LogisticRegression, KNeighborsClassifier])
def test_a_pipeline_that_would_fail_later_fails_in_training(tmp_path: Path, estimator: Any) -> None:
    whole = pumps.database(tmp_path / "source.db", pumps.readings(2000))
    said = (
        "head 'failure_probability': cannot score a row without 'load', which the declaration "
        "calls nullable: ValueError: Input X contains NaN; 'load': add an imputer"
    )
    with pytest.raises(CannotTrainError) as found:
        check(
            model(lambda _: estimator(), lambda _: features(StandardScaler())),
            whole,
            tmp_path / "version",
        )
    assert str(found.value).startswith(said)


def imputed(_: Any) -> ColumnTransformer:
    return features(make_pipeline(SimpleImputer(), StandardScaler()))


@pytest.mark.parametrize(
    ("estimator", "steps"),
    [
        (lambda _: LogisticRegression(), imputed),
        (lambda _: RandomForestClassifier(20, random_state=0), lambda _: features()),
        (boosting, lambda _: features(handle_unknown="ignore", categories=[list(GRADES)])),
    ],
    ids=["imputed", "forest", "unknown categories ignored"],
)
def test_pipelines_that_take_missing_values_become_versions(
    gaps: str, tmp_path: Path, estimator: Any, steps: Any
) -> None:
    made = check(model(estimator, steps), gaps, tmp_path / "version")
    assert made.manifest.heads[0].onnx or made.report.consequences


def test_smote_is_refused_with_nullable_columns() -> None:
    declared = model(boosting)
    with pytest.raises(DeclarationError, match=r"balance makes rows between.*'load'"):
        msgspec.structs.replace(declared, balance=MODEL.balance).__post_init__()


def test_recent_rows_with_missing_values_are_read_from_the_ledger(ledger: Ledger) -> None:
    declared = model(boosting)
    table = with_gaps(200, 7)
    predictions, labels = [], []
    for number, row in enumerate(table.to_dict("records")):
        name = f"{number:032x}"
        inputs = {c: [None if pd.isna(row[c]) else row[c]] for c in MODEL.names}
        inputs["grade"] = [inputs["grade"][0] or ""]  # as a server records a missing text
        predictions.append(
            Prediction(
                name, 1, declared.name, 1, "http", "test", 100.0 + number, 0.001, "OK", 1, inputs
            )
        )
        value = float(row[pumps.TARGET])
        labels.append(LabelRecord(name, 0, declared.name, 1, value, 500.0 + number, "test"))
    store_records(ledger, predictions, labels, SpoolState("spool", declared.name, 1, 1000.0))
    recent = read_recent(ledger, declared, [1], None)
    assert len(recent.rows) == 200
    expected = table["load"].isna().to_numpy()
    assert (recent.rows.columns["load"].isna().to_numpy() == expected).all()
    assert (recent.rows.columns["grade"] == MISSING_TEXT).sum() == table["grade"].isna().sum()


def test_a_column_that_is_empty_unless_the_truth_is_1_knows_the_truth(tmp_path: Path) -> None:
    table = pumps.readings(6000)
    table["load"] = table["load"].where(table[pumps.TARGET] == 1)
    made = check(model(boosting), pumps.database(tmp_path / "leak.db", table), tmp_path / "version")
    (leakage,) = (each for each in made.report.checks if each.name == "leakage")
    assert not leakage.passed
    assert "'load'" in leakage.reason


def test_a_text_column_of_a_database_may_hold_the_empty_text(tmp_path: Path) -> None:
    url = pumps.database(tmp_path / "source.db", with_gaps(500))
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE pump_readings SET grade='' WHERE id = 1"))
    engine.dispose()
    rows = read_history(url, model(boosting))
    assert rows.columns["grade"][0] == MISSING_TEXT
