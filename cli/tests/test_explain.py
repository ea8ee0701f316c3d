"""``watchkeeper explain``: the chain from a prediction to its cause."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from watchkeeper.cli.explain import UnknownPredictionError, print_explanation, read_explanation
from watchkeeper.cli.system import System
from watchkeeper.core.events import (
    Event,
    GatePassed,
    RolloutStarted,
    TrainingData,
)
from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.sample import Sample
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.counts import (
    count_answered,
    count_labels,
    count_reports,
    count_requests,
    stored_requests,
)
from watchkeeper.ledger.episodes import Attempt, Episode, save_attempt, save_episode
from watchkeeper.ledger.events import emit
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState

MODEL = "pump-failure"
REQUEST = "a" * 32


def prediction(
    attempt: int, version: int, status: str = "OK", request: str = REQUEST
) -> Prediction:
    return Prediction(
        id=request,
        attempt=attempt,
        model=MODEL,
        version=version,
        protocol="http",
        client="test",
        time=1000.0,
        latency=0.004,
        status=status,
        rows=1,
        inputs={"flow": [1.5], "grade": ["[red]"]},
        outputs={"failure_probability": [0.25]} if status == "OK" else {},
        error=None if status == "OK" else "it is [broken]",
    )


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A request that version 3 has failed and version 2 has answered at the second attempt."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    label = LabelRecord(REQUEST, 0, MODEL, 2, 1.0, 1100.0, "inspection")
    spool = SpoolState(id="b" * 32, model=MODEL, version=2, shipped_until=2000.0)
    store_records(ledger, [prediction(1, 3, "UNAVAILABLE"), prediction(2, 2)], [label], spool)
    sample = Sample(1000, 4100, 4)
    data = TrainingData("0" * 64, 1000, 12, "history", sample)
    gate = GatePassed(
        run=f"{MODEL}-v1-a2", trigger="drift of flow", code_version="1", data=data, mlflow_run="m"
    )
    emit(ledger, Event("gate", MODEL, 2, 500.0, "better", gate))
    emit(ledger, Event("begun", MODEL, 2, 600.0, "candidate", RolloutStarted(stable=1)))
    emit(ledger, Event("other", MODEL, 3, 700.0, "candidate", RolloutStarted(stable=2)))
    save_attempt(ledger, Attempt(gate.run, "episode-1", MODEL, gate.trigger, 450.0))
    save_episode(
        ledger, Episode("episode-1", MODEL, 1, "promoted", 300.0, 400.0, 600.0, 1, "drift of flow")
    )
    yield System(None, ledger, None, None, (MODEL,))  # type: ignore[arg-type]
    ledger.close()


def test_chain_leads_from_the_prediction_to_the_episode(system: System) -> None:
    explanation = read_explanation(system, f"{REQUEST}-2-2-{'0' * 32}")
    chain = explanation.as_json()
    assert chain["prediction"]["outputs"] == {"failure_probability": [0.25]}
    assert [label.value for label in chain["labels"]] == [1.0]
    assert [(other.attempt, other.version) for other in chain["hidden"]] == [(1, 3)]
    assert chain["version"] == 2
    assert chain["training"]["details"]["run"] == chain["attempt"].run
    assert chain["episode"].id == chain["attempt"].episode == "episode-1"
    assert [event["kind"] for event in chain["steps"]] == ["begun"]


def test_tree_shows_the_whole_chain(system: System) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_explanation(console, read_explanation(system, REQUEST))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for expected in (
        f"prediction {REQUEST}: OK over http in 4.0 ms",
        "inputs: {'flow': [1.5], 'grade': ['[red]']}",
        "attempt 1 by version 3: UNAVAILABLE",
        "label of row 0: 1",
        f"{MODEL} version 2",
        "gate: gate-passed: better",
        "data: 1000 rows of history and 12 labelled predictions",
        "sample: 1,000 of 4,100 rows: one in 4 blocks of consecutive ids",
        "trigger: drift of flow",
        "drift episode episode-1: promoted",
        "begun: candidate",
    ):
        assert expected in text


def test_refused_prediction_without_a_known_training(system: System) -> None:
    request = "c" * 32
    spool = SpoolState(id="b" * 32, model=MODEL, version=7, shipped_until=2000.0)
    store_records(system.ledger, [prediction(1, 7, "INVALID_ARGUMENT", request)], [], spool)
    explanation = read_explanation(system, request)
    assert explanation.as_json()["training"] is None
    console = Console(file=io.StringIO(), width=200)
    print_explanation(console, explanation)
    assert isinstance(console.file, io.StringIO)
    assert "refused: it is [broken]" in console.file.getvalue()


def test_unknown_prediction_is_an_error(system: System) -> None:
    with pytest.raises(UnknownPredictionError, match="try again, or check"):
        read_explanation(system, "d" * 32)


def test_counts_of_the_ledger(system: System) -> None:
    ledger = system.ledger
    refused = prediction(1, 2, "INVALID_ARGUMENT", "c" * 32)
    spool = SpoolState(id="b" * 32, model=MODEL, version=2, shipped_until=2000.0)
    store_records(ledger, [refused], [], spool)
    found = stored_requests(ledger, MODEL)
    assert found.answered == {"http": {REQUEST}, "grpc": set()}
    assert found.refused == {refused.id}
    assert count_answered(ledger, MODEL) == 1
    assert count_requests(ledger, MODEL, since=1000.0, until=1000.1) == {("http", 2): 2}
    assert count_requests(ledger, MODEL, since=999.0, until=1000.0) == {}
    assert count_labels(ledger, MODEL) == 1
    assert count_reports(ledger, MODEL, 2) == 0
