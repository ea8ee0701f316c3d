"""Every message about data, word by word: what is wrong, where, and what to do.

A reader of the log has only the last line. All of these runs end with exit code 2, because another
attempt would not help.
"""

import logging
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pumps
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import OneHotEncoder

from watchkeeper.core.exit_codes import EXIT_FATAL
from watchkeeper.ledger import Ledger
from watchkeeper.registry import Registry
from watchkeeper.training import CannotTrainError
from watchkeeper.training.__main__ import main
from watchkeeper.training.declaration import Model
from watchkeeper.training.export import export
from watchkeeper.training.fit import fit
from watchkeeper.training.history import read_history
from watchkeeper.training.models import find
from watchkeeper.training.recent import read_recent
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import split

Change = Callable[[pd.DataFrame], pd.DataFrame]
PUMPS, RISK = find("pump-failure"), find("pump-risk")
HISTORY, QUERY = "history of pump-failure: ", "in the source's query"


def first(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Replace the value in the row with id 10."""
    changed = table.astype({n: object for n, x in values.items() if not isinstance(x, int | float)})
    for name, value in values.items():
        changed.loc[9, name] = value
    return changed


def clustered(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(failed=np.isin(table["id"], (21, 22, 23, 24)).astype(int))


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.assign(id=table["id"] + len(table))])


REFUSED: dict[str, tuple[Change, str]] = {
    "no rows": (
        lambda t: t[:0],
        "the source's query returns no rows; load some first",
    ),
    "id: text": (
        lambda t: t.assign(id=[f"M{n}" for n in t["id"]]),
        "column 'id' holds 'M1' (row with id M1 and 2999 more); an id must be an integer of 64 "
        "bits that rises in time",
    ),
    "id: fractions": (
        lambda t: t.assign(id=t["id"] + 0.5),
        "column 'id' holds the number 1.5 (row with id 1.5 and 2999 more); an id must be an "
        "integer of 64 bits that rises in time",
    ),
    "id: empty": (
        lambda t: first(t, id=None),
        "column 'id' is empty in 1 rows; each row needs a value",
    ),
    "id: twice": (
        lambda t: first(t, id=9),
        "column 'id' holds the number 9 (row with id 9); another row has the same id",
    ),
    "category: number": (
        lambda t: t.assign(grade=1),
        "column 'grade' holds the number 1 (row with id 1 and 2999 more); a BYTES column holds "
        "text, and the declaration lists 'L', 'M', 'H'; convert it with CAST in the source's query",
    ),
    "category: unknown": (
        lambda t: t.assign(grade=t["grade"] + " "),
        "column 'grade' holds 'M ' (row with id 1 and 2999 more); the declaration lists 'L', 'M', "
        "'H'; add the category there, or correct it in the source's query",
    ),
    "number: text": (
        lambda t: first(t, load="N/A"),
        "column 'load' holds 'N/A' (row with id 10); the declaration says that it is a number; "
        "convert it in the source's query",
    ),
    "number: long text": (
        lambda t: first(t, load="x" * 1000),
        f"column 'load' holds '{'x' * 40}…' (row with id 10); the declaration says that it is a "
        "number; convert it in the source's query",
    ),
    "number: bytes": (
        lambda t: first(t, load=b"abc"),
        "column 'load' holds b'abc' (bytes) (row with id 10); the declaration says that it is a "
        "number; convert it in the source's query",
    ),
    "number: empty column": (
        lambda t: t.assign(load=None),
        "none of the 3000 rows can be used: column 'load' is empty (3000 rows, such as id 1)",
    ),
    "number: out of range": (
        lambda t: t.assign(load=-1.0, wear=np.inf),
        "none of the 3000 rows can be used: column 'load' is out of range (3000 rows, such as "
        "id 1: the number -1.0), column 'wear' is infinite or too large for FP32 (3000 rows, such "
        "as id 1: the number inf)",
    ),
    "truth: words": (
        lambda t: t.assign(failed=np.where(t["failed"] == 1, "yes", "no")),
        "column 'failed' holds 'no' (row with id 1 and 2999 more); a label must be 0 or 1; "
        "convert it in the source's query",
    ),
    "truth: counts": (
        lambda t: first(t, failed=3),
        "column 'failed' holds the number 3 (row with id 10); a label must be 0 or 1; convert "
        "it in the source's query",
    ),
    "truth: unknown": (
        lambda t: t.assign(failed=None),
        "'failed' is empty in all 3000 rows; a training run needs rows whose truth is known",
    ),
    "truth: one outcome": (
        lambda t: t.assign(failed=0),
        "'failed' is 0 in all 3000 rows that can be used; a training run needs rows with "
        "different truths",
    ),
    "few rows": (
        lambda t: t[:400],
        "400 rows with 'failed' are too few: they are in 1 block(s) of 500 consecutive ids, none "
        "of which is held out, and the gate needs some; load more, or declare a smaller "
        "split.block_rows",
    ),
    "clustered positives": (
        clustered,
        "no row with 'failed' = 1 is held out, and the gate needs some: the 4 of them are "
        "clustered in few of the 6 block(s) of 500 consecutive ids; load more, or declare a "
        "smaller split.block_rows",
    ),
    "loaded twice": (
        twice,
        "3000 of 6000 rows (50.0%) have the features of an earlier row; by chance it would be "
        "0.0%, and split.max_duplicates allows 30.0% more. Was a table loaded twice, or does a "
        "join multiply rows? Remove the duplicates in the table or in the source's query; if "
        "equal rows are observations of their own, declare max_duplicates=1.0",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unusable_data_is_refused_with_the_reason_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    registry: Registry,
    ledger: Ledger,
    tmp_path: Path,
    *,
    what: str,
) -> None:
    change, message = REFUSED[what]
    url = pumps.database(tmp_path / "source.db", change(pumps.readings(3000)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(registry.client.tracking_uri))
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", url)
    monkeypatch.setenv("WATCHKEEPER_LEDGER_URL", str(ledger.engine.url))
    assert main(["pump-failure", "--run", "one", "--trigger", "a test"]) == EXIT_FATAL
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert errors == [HISTORY + message]


def read(folder: Path, table: pd.DataFrame, model: Model = PUMPS) -> Rows:
    return read_history(pumps.database(folder / "source.db", table), model)


INTEGERS = [
    (2**53, "column 'wear' holds the number 9007199254740992 (row with id 10); a model computes "
     "in FP64, which rounds integers from 2^53 on; leave identifiers out, and scale times in the "
     "source's query"),
    (-(2**53) - 1, "column 'wear' holds the number -9007199254740993 (row with id 10); a model"),
    (0.5, "column 'wear' holds the number 0.5 (row with id 10); INT64 has no fractions; declare "
     "FP64, or round in the source's query"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), INTEGERS)
def test_an_integer_that_a_model_would_change_is_refused(
    tmp_path: Path, value: float, message: str
) -> None:
    kind = type(value)
    with pytest.raises(CannotTrainError) as refused:
        read(tmp_path, first(pumps.readings(1000).astype({"wear": kind}), wear=value), RISK)
    assert str(refused.value).startswith(f"history of pump-risk: {message}")


def test_integers_and_ids_are_exact_beside_empty_values(tmp_path: Path) -> None:
    table = first(pumps.readings(1000).astype({"wear": "Int64"}), wear=2**53 - 1)
    table.loc[0, "wear"] = None
    table["id"] += 2**60
    rows = read(tmp_path, table, RISK)
    assert rows.columns["wear"].dtype == np.int64
    assert rows.columns["wear"][8] == 2**53 - 1
    assert list(rows.key[:3]) == [2**60 + 2, 2**60 + 3, 2**60 + 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: first(t, load=np.inf),
            "'load' is infinite or too large for FP32 (1 row, such as id 10: the number inf)",
        ),
        (
            lambda t: first(t, load=1e39),
            "'load' is infinite or too large for FP32 (1 row, such as id 10: the number 1e+39)",
        ),
        (
            lambda t: first(t, load=-5.0),
            "'load' is out of range (1 row, such as id 10: the number -5.0)",
        ),
        (lambda t: first(t, load=""), "'load' is empty (1 row, such as id 10)"),
        (lambda t: first(t, grade=None), "'grade' is empty (1 row, such as id 10)"),
    ],
)
def test_a_row_that_no_request_can_have_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Change, message: str
) -> None:
    rows = read(tmp_path, change(pumps.readings(1000)))
    assert len(rows) == 999
    assert 10 not in rows.key
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [f"{HISTORY}1 of 1000 rows left out: column {message}"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "SELECT *, load FROM pump_readings",
            "must return column 'load' once, and returns it twice",
        ),
        (
            "SELECT id, failed FROM pump_readings",
            "must return column 'grade' once, and returns it not; it returns id, failed",
        ),
    ],
)
def test_the_query_must_return_each_column_once(tmp_path: Path, query: str, message: str) -> None:
    source = msgspec.structs.replace(PUMPS.source, query=query)
    with pytest.raises(CannotTrainError, match=message):
        read(tmp_path, pumps.readings(10), msgspec.structs.replace(PUMPS, source=source))


def test_a_column_of_the_source_may_have_any_name(tmp_path: Path) -> None:
    """The name ``key`` is one that the code could use itself."""
    query = "SELECT id, load AS key, shaft_speed, wear, failed FROM pump_readings"
    columns = (msgspec.structs.replace(RISK.columns[0], name="key"), *RISK.columns[1:])
    source = msgspec.structs.replace(RISK.source, query=query)
    table = pumps.readings(1000)
    rows = read(tmp_path, table, msgspec.structs.replace(RISK, source=source, columns=columns))
    assert rows.columns["key"].tolist() == table["load"].tolist()
    assert rows.key.tolist() == table["id"].tolist()


def test_decimals_and_booleans_of_a_database_are_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = pumps.readings(1000)
    given = table.astype(object)
    given["load"] = [Decimal(str(x)) for x in table["load"]]
    given["failed"] = table["failed"].astype(bool).astype(object)
    given["id"] = [Decimal(x) for x in table["id"]]
    part = (list(given), list(given.itertuples(index=False, name=None)))
    parts = lambda *_: (each for each in [part])  # noqa: E731 - a generator, which can be closed
    monkeypatch.setattr("watchkeeper.training.history._parts", parts)
    rows = read(tmp_path, table)
    assert rows.columns["load"].tolist() == table["load"].tolist()
    assert rows.target.tolist() == table["failed"].tolist()


def test_the_group_of_a_row_must_be_known(tmp_path: Path) -> None:
    model = msgspec.structs.replace(
        PUMPS,
        source=msgspec.structs.replace(PUMPS.source, query="SELECT * FROM pump_readings"),
        split=msgspec.structs.replace(PUMPS.split, group="pump"),
    )
    with pytest.raises(CannotTrainError, match="column 'pump' is empty in 1 rows"):
        read(tmp_path, first(pumps.readings(1000), pump=None), model)


def test_predictions_with_rounded_integers_are_left_out(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    table = first(pumps.readings(50), wear=2**60)
    pumps.store_predictions(ledger, "pump-risk", table, version=1, since=1000.0, labelled=50)
    assert len(read_recent(ledger, RISK, [1], None).rows) == 49
    assert "1 rows left out: their category is not declared, or their integer" in caplog.text


def changed_head(**changes: object) -> Model:
    head = msgspec.structs.replace(RISK.main_head, **changes)
    return msgspec.structs.replace(RISK, heads=(head, *RISK.heads[1:]), balance=None)


def fitted(folder: Path, model: Model) -> None:
    rows = read(folder, pumps.readings(3000), model)
    parts = split(rows, rows.where(np.zeros(len(rows), dtype=bool)), model)
    export(model, model.parameters(), fit(model, model.parameters(), parts))


def test_an_estimator_that_refuses_its_rows_is_named(tmp_path: Path) -> None:
    model = changed_head(estimator=lambda _: LogisticRegression(C=-1.0))
    with pytest.raises(CannotTrainError) as refused:
        fitted(tmp_path, model)
    assert str(refused.value).startswith(
        "head 'failure_probability' of pump-risk: cannot fit 2084 rows of history: "
        "InvalidParameterError: The 'C' parameter of LogisticRegression must be a float"
    )


def test_features_that_cannot_score_a_row_are_named(tmp_path: Path) -> None:
    encoder = lambda _: ColumnTransformer([("wear", OneHotEncoder(sparse_output=False), ["load"])])  # noqa: E731
    with pytest.raises(CannotTrainError) as refused:
        fitted(tmp_path, changed_head(features=encoder))
    said = r"head 'failure_probability': cannot score \d+ rows: ValueError: Found unknown"
    assert re.match(said, str(refused.value))


def test_a_pipeline_without_an_onnx_form_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = LocalOutlierFactor(novelty=True)
    monkeypatch.setattr(
        "watchkeeper.training.export.to_onnx",
        lambda *_: (_ for _ in ()).throw(RuntimeError(f"no converter of {estimator}")),
    )
    fitted(tmp_path, RISK)
    assert "failure_probability: no ONNX form: RuntimeError: no converter of Local" in caplog.text
    assert "Its own library answers requests, one row takes" in caplog.text


def test_an_error_in_a_declarations_own_code_is_named() -> None:
    with pytest.raises(
        CannotTrainError,
        match="model 'broken-declaration', declared as broken_declaration:MODEL: KeyError: 'pump'",
    ):
        find("broken-declaration")
