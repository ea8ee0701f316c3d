"""The summary counts what senders, ledger and status say."""

import asyncio
import io
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pumps import PLANT
from rich.console import Console

from watchkeeper.core.events import (
    EpisodeChanged,
    Event,
    GatePassed,
    Promoted,
    RolledBack,
    StepFinished,
    TrainingData,
)
from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.demo import summarize as summarize_module
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.display import Display
from watchkeeper.demo.events import EventLog
from watchkeeper.demo.messages import Answer, RequestCounts, TrafficProgress
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.shares import CanaryStep
from watchkeeper.demo.summarize import summarize
from watchkeeper.demo.summary import Requests
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.events import emit
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState

MODEL = PLANT.model


def prediction(number: int, version: int, protocol: Any) -> Prediction:
    return Prediction(
        id=f"{number:032x}",
        attempt=1,
        model=MODEL,
        version=version,
        protocol=protocol,
        client="test",
        time=100.0 + number,
        latency=0.01,
        status="OK",
        rows=1,
        inputs={"flow": [1.0]},
        outputs={"failure": [0]},
    )


def answer(stored: Prediction) -> Answer:
    id_ = f"{stored.id}-{stored.version}-1-{'0' * 32}"
    row, outputs = {"flow": 1.0}, {"failure": 0}
    return Answer(stored.protocol, "test", stored.time, 0.01, stored.version, id_, row, outputs)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    data = TrainingData("0" * 64, 1000, 0, "history")
    gate = GatePassed(run="run", trigger="drift", code_version="1", data=data, mlflow_run="m")
    step = StepFinished(
        percent=25, since=100, until=108, verdict="pass", observations={}, policy={}
    )
    episode = EpisodeChanged(
        episode="e", state="training", attempt=1, run="run", onset=1.0, policy={}
    )
    for version, details in ((2, gate), (2, step), (2, Promoted()), (1, episode)):
        kind = type(details).__name__
        emit(ledger, Event(kind, MODEL, version, 200.0, "", details))
    emit(ledger, Event("back", MODEL, 3, 300.0, "", RolledBack(to=2, percent=10)))
    records = [prediction(n, 2 if n % 4 == 0 else 1, ("http", "grpc")[n % 2]) for n in range(10)]
    labels = [LabelRecord(records[0].id, 0, MODEL, 2, 1.0, 150.0, "inspection")]
    spool = SpoolState(id="b" * 32, model=MODEL, version=1, shipped_until=200.0)
    store_records(ledger, records, labels, spool)
    return ledger


def test_summary_compares_senders_and_ledger(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(tmp_path / "traffic", PLANT)
    records = [prediction(n, 2 if n % 4 == 0 else 1, ("http", "grpc")[n % 2]) for n in range(9)]
    answers = [answer(record) for record in records]
    answers.append(answers[0])  # an id that was used twice
    answers.append(answer(prediction(99, 1, "grpc")))  # an answer that the ledger does not have
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in answers)
    for kit, content in zip(KITS, (lines, b""), strict=True):
        traffic.answers_file(kit).write_bytes(content)
    counts = {"http": RequestCounts(6, 6, 0), "grpc": RequestCounts(6, 5, 1)}
    progress = TrafficProgress(counts, {1: 8, 2: 3}, labels=1)  # type: ignore[arg-type]
    monkeypatch.setattr(traffic, "progress", lambda: progress)

    async def count_wrong(given: list[Answer], model: str, mlflow: str, folder: Path) -> Any:
        assert (given, model, mlflow, folder) == (answers, MODEL, "http://mlflow", traffic.folder)
        return Counter({"grpc": 2})

    monkeypatch.setattr(summarize_module, "count_wrong_answers", count_wrong)
    status = {
        "endpoints": {"mlflow": "http://mlflow"},
        "models": [{"name": MODEL, "runs": {"a": "succeeded", "b": "succeeded"}}],
    }
    log = EventLog(ledger, MODEL, Display(Console(file=io.StringIO())))
    summary, checks = asyncio.run(
        summarize(log, traffic, status, steps=(25,), seconds=12.34, killed=["mlflow"])
    )
    assert summary.requests == {
        "http": Requests(sent=6, answered=6, failed=0, wrong=0, in_ledger=5),
        "grpc": Requests(sent=6, answered=5, failed=1, wrong=2, in_ledger=4),
    }
    assert summary.steps == [CanaryStep(2, 25, 4, 2, 4, 0, "pass", "")]
    assert (summary.promoted, summary.rolled_back, summary.versions) == ([2], [3], 1)
    assert (summary.episodes, summary.jobs, summary.labels) == (1, 2, 1)
    assert (summary.duration_s, summary.killed) == (12.3, ["mlflow"])
    assert (checks.labels_accepted, checks.repeated_ids, checks.unknown_records) == (1, 1, 1)
    assert checks.expected_steps == [(2, 25, "pass"), (3, 25, "fail")]
    shown = Display(Console(file=io.StringIO(), width=200))
    shown.summary(summary, ["too [slow]"])
    assert isinstance(shown.console.file, io.StringIO)
    text = shown.console.file.getvalue()
    assert "2 of 4" in text
    assert "problem: too [slow]" in text
