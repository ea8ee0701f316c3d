"""``watchkeeper check``: a sample goes through all stages, and a defect is named by its field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS
from watchkeeper.core.version import EXAMPLE, Example, seal
from watchkeeper.pipeline import load
from watchkeeper.training import CannotTrainError, SearchInterruptedError, run
from watchkeeper.training import check as check_module
from watchkeeper.training.check import check, main
from watchkeeper.training.declaration import Model, Split
from watchkeeper.training.models import find
from watchkeeper.training.reload import reload

MODEL = find("pump-failure")
SMALL = msgspec.convert({"trees": 10, "search": "off"}, MODEL.parameters)


@pytest.fixture(scope="module")
def version(history: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checked") / "version"
    check(MODEL, history, folder, SMALL)
    return folder


def test_a_model_that_can_be_trained_passes_without_a_registry_and_a_ledger(
    history: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", history)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = [MODEL.name, "--set", "trees=10", "--set", "search=off"]
    assert main([*arguments, "--json"]) == EXIT_SUCCESS
    found = json.loads(capsys.readouterr().out)
    assert found["gate"]["passed"]
    assert found["onnx"] == {"failure_probability": True}
    assert main(arguments) == EXIT_SUCCESS
    assert "pump-failure can be trained and served" in capsys.readouterr().out


def test_only_a_sample_is_fitted_and_it_has_both_outcomes(
    history: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_module, "MOST_ROWS", 400)
    found = check(MODEL, history, tmp_path / "version", SMALL)
    counts = found.report.rows["history"]
    assert counts["rows"] <= 400
    assert 20 < counts["positives"] <= 200


class OwnForest(RandomForestClassifier):
    """A class that no server knows."""


def with_head(model: Model, **changes: Any) -> Model:
    (head,) = model.heads
    return msgspec.structs.replace(model, heads=(msgspec.structs.replace(head, **changes),))


DEFECTS: dict[str, tuple[Callable[[Model], Model], str]] = {
    "no such column": (
        lambda m: msgspec.structs.replace(
            m, source=msgspec.structs.replace(m.source, query="SELECT id FROM pump_readings")
        ),
        "the source's query must return column 'grade'",
    ),
    "category": (
        lambda m: msgspec.structs.replace(
            m,
            columns=(msgspec.structs.replace(m.columns[0], categories=("L", "M")), *m.columns[1:]),
        ),
        "column 'grade' holds 'H' .*the declaration lists 'L', 'M'",
    ),
    "blocks": (
        lambda m: msgspec.structs.replace(m, split=Split(block_rows=100_000)),
        "declare a smaller split.block_rows",
    ),
    "features": (lambda m: with_head(m, features=lambda _: None), "head 'failure_probability'"),
    "estimator": (
        lambda m: with_head(m, estimator=lambda _: KNeighborsClassifier(n_neighbors=0)),
        "head 'failure_probability'",
    ),
    "own class": (
        lambda m: with_head(m, estimator=lambda _: OwnForest(5)),
        "head 'failure_probability' .*OwnForest is of no known framework",
    ),
}


@pytest.mark.parametrize("what", DEFECTS)
def test_a_defect_is_named_by_its_field(history: str, tmp_path: Path, what: str) -> None:
    change, message = DEFECTS[what]
    with pytest.raises(CannotTrainError, match=message):
        check(change(MODEL), history, tmp_path / "version", SMALL)


def test_a_database_that_does_not_exist_and_one_that_does_not_answer_are_different(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", f"sqlite:///{tmp_path}/missing.db")
    assert main([MODEL.name]) == EXIT_FATAL
    assert "there is no such database" in capsys.readouterr().err
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert main([MODEL.name, "--json"]) == EXIT_RETRY
    assert "cannot refresh" not in capsys.readouterr().err


def test_a_search_that_has_lost_its_workers_can_be_tried_again(
    history: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(*_: object) -> None:
        raise SearchInterruptedError("search: workers were killed")

    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", history)
    monkeypatch.setattr(run, "search", lost)
    assert main([MODEL.name]) == EXIT_RETRY
    assert "search: workers were killed" in capsys.readouterr().err


def test_a_saved_pipeline_that_no_server_would_load_is_refused(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.pipeline.frameworks.sklearn.TRUSTED_TYPES", ())
    with pytest.raises(CannotTrainError, match=r"heads: a server cannot load .*not trusted"):
        reload(version)


def test_a_saved_pipeline_that_answers_in_another_way_is_refused(
    version: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "version"
    copy.mkdir()
    for path in version.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(version)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(version)).write_bytes(path.read_bytes())
    example = msgspec.json.decode((copy / EXAMPLE).read_bytes(), type=Example)
    outputs = {**example.outputs, "failure": [1 - value for value in example.outputs["failure"]]}
    changed = msgspec.structs.replace(example, outputs=outputs)
    (copy / EXAMPLE).write_bytes(msgspec.json.encode(changed))
    seal(copy, load(version).manifest)
    with pytest.raises(CannotTrainError, match="heads: the saved pipeline answers failure = "):
        reload(copy)
