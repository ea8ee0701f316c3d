"""The controller with a real registry and a real ledger."""

import logging
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from free_ports import free_port
from plant import POLICY, Plant, build_version, run, state
from prometheus_client import generate_latest

from watchkeeper.core.events import StepFinished
from watchkeeper.core.policies import RolloutPolicy
from watchkeeper.core.record import LabelRecord
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history, production_version
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.spools import SpoolState
from watchkeeper.platforms import PlatformError, RolloutCommands, Route
from watchkeeper.registry import ROLLOUT_TAG, Registry
from watchkeeper.rollout import evidence_reader
from watchkeeper.rollout.evidence import Evidence
from watchkeeper.rollout.evidence_reader import EvidenceReader, WindowReader
from watchkeeper.rollout.metrics import Health, RolloutMetrics, serve
from watchkeeper.rollout.state import RolloutState, Window
from watchkeeper.rollout.version_cache import Content, VersionCache


@pytest.fixture
def plant(registry: Registry, ledger: Ledger, tmp_path: Path) -> Plant:
    return Plant(registry, ledger, f"pump-{uuid.uuid4().hex[:8]}", tmp_path)


def settled(plant: Plant, production: int) -> Callable[[], bool]:
    return lambda: (
        state(plant).phase == "steady"
        and state(plant).production == production
        and set(plant.platform.pods) == {production}
        and plant.registry.aliases(plant.model).keys() <= {"production", "previous"}
    )


def tag(plant: Plant, version: int) -> str:
    return plant.registry.versions(plant.model)[version - 1].tags.get(ROLLOUT_TAG, "")


def test_registry_and_ledger_agree_after_promotions_and_a_rollback(plant: Plant) -> None:
    assert plant.register() == 1
    run(plant, settled(plant, 1))
    assert production_version(plant.ledger, plant.model) == 1

    assert plant.register() == 2
    run(plant, lambda: state(plant).canary_percent == 25)
    plant.restart()  # all that it needs is in registry, platform and ledger
    run(plant, settled(plant, 2))
    assert plant.registry.aliases(plant.model) == {"production": 2, "previous": 1}
    assert tag(plant, 2) == "promoted"
    assert production_version(plant.ledger, plant.model) == 2

    assert plant.register() == 3
    plant.slow[3] = 0.04
    run(plant, settled(plant, 2))
    run(plant, lambda: tag(plant, 3) != "")
    assert "latency" in tag(plant, 3)
    run(plant, settled(plant, 2))
    steps = [
        (e.version, e.details.percent, e.details.verdict)
        for e in history(plant.ledger, plant.model, kind=StepFinished)
    ]
    assert steps == [(2, 10, "pass"), (2, 25, "pass"), (2, 50, "pass"), (3, 10, "fail")]
    assert set(plant.platform.pods) == {2}


def test_the_share_of_each_step_can_be_counted_from_its_event(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, settled(plant, 2))
    for step in history(plant.ledger, plant.model, kind=StepFinished):
        shares = []
        for version in (1, 2):
            since, until = step.details.since, step.details.until
            found = observations(plant.ledger, plant.model, version, since=since, until=until)
            shares.append(len(found))
        share, n = step.details.percent / 100, sum(shares)
        assert abs(shares[1] - share * n) < 5 * (share * (1 - share) * n) ** 0.5
        assert step.details.observations["http errors"]["new"][0] == 0
        assert step.details.policy["step_seconds"] == POLICY.step_seconds


def test_a_step_contains_all_requests_that_were_judged(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    reader = plant.controller.evidence_reader
    read = reader.read
    judged: dict[float, float] = {}  # since when, until when

    def slow_read(
        state: RolloutState, policy: RolloutPolicy, digest: str
    ) -> tuple[Evidence | None, str]:
        plant.serve(0.5)
        plant.now += 0.5
        evidence, error = read(state, policy, digest)
        if evidence is not None and state.since is not None:
            judged[state.since] = state.since + evidence.seconds
        return evidence, error

    monkeypatch.setattr(reader, "read", slow_read)
    run(plant, settled(plant, 2))
    steps = [e.details for e in history(plant.ledger, plant.model, kind=StepFinished)]
    assert len(steps) == 3
    assert all(step.since < judged[step.since] <= step.until for step in steps)


def test_a_version_with_skew_is_taken_off(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    plant.skewed[2] = 0.001
    run(plant, lambda: tag(plant, 2) != "")
    assert "skew" in tag(plant, 2)


def test_a_version_whose_failures_the_gateway_hides_by_retries_is_taken_off(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    plant.unanswered[2] = 0.5
    run(plant, lambda: tag(plant, 2) != "")
    assert "errors" in tag(plant, 2)
    seen = observations(plant.ledger, plant.model, 2, since=0.0)
    assert {o.status for o in seen} == {"OK"}, "no client saw an error"


def test_each_request_counts_once_when_a_clock_goes_back(plant: Plant) -> None:
    def shipped(number: int, time: float) -> None:
        one = msgspec.structs.replace(plant.request(1), id=f"{number:032x}", time=time)
        store_records(plant.ledger, [one], [], SpoolState("a", plant.model, 1, 0.0))

    reader = WindowReader(Window(1, 1000.0, float("inf")))
    for number in range(10):
        shipped(number, 1000.0 + 10 * number)
    for until in (1050.0, 1100.0):
        reader.extend(plant.ledger, plant.model, (), until)
    assert reader.sample(np.empty((0, 2))).requests("http") == 10
    for number in range(10, 14):  # the clock says 1030 again
        shipped(number, 1025.0 + number)
    for until in (0.0, 1037.0, 1045.0, 1120.0):
        reader.extend(plant.ledger, plant.model, (), until)
    assert reader.sample(np.empty((0, 2))).requests("http") == 14


def test_a_turn_reads_a_bounded_number_of_the_newest_rows(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_reader, "READ_ROWS", 5000)
    one = plant.request(1)
    many = [
        msgspec.structs.replace(
            one,
            id=f"{number:032x}",
            time=1001.0 + number,
            rows=1000,
            inputs={name: values * 1000 for name, values in one.inputs.items()},
            outputs={"score": [float(number)] * 1000},
        )
        for number in range(20)
    ]
    store_records(plant.ledger, many, [], SpoolState("a", plant.model, 1, 0.0))
    reader = WindowReader(Window(1, 1000.0, float("inf")))
    reader.extend(plant.ledger, plant.model, ("score",), 1100.0)
    sample = reader.sample(np.empty((0, 2)))
    assert sample.requests("http") == 5
    assert {*sample.scores["score"]} == {15.0, 16.0, 17.0, 18.0, 19.0}


def test_synthetic_requests_show_errors_latency_and_skew_but_no_shift(plant: Plant) -> None:
    made = [
        msgspec.structs.replace(
            plant.request(1), time=1001.0 + n, synthetic=n % 2 == 1, status="OK" if n < 8 else "X"
        )
        for n in range(10)
    ]
    labels = [LabelRecord(one.id, 0, plant.model, 1, 1.0, 1020.0, "a test") for one in made]
    store_records(plant.ledger, made, labels, SpoolState("a", plant.model, 1, 1030.0))
    reader = WindowReader(Window(1, 1000.0, float("inf")))
    reader.extend(plant.ledger, plant.model, ("probability",), 1030.0)
    sample = reader.sample(np.empty((0, 2)))
    assert (sample.requests("http"), sample.answered("http"), len(reader.rows)) == (10, 8, 8)
    assert len(sample.scores["probability"]) == 4


def test_a_load_test_of_a_canary_does_not_roll_it_back(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, lambda: state(plant).canary_percent == 10)
    extreme = {"pressure": [100.0], "flow": [100.0]}
    score = plant.offline.scores({n: np.array(v) for n, v in extreme.items()})["probability"]
    sent = [
        msgspec.structs.replace(
            plant.request(2),
            inputs=extreme,
            outputs={"probability": score.tolist()},
            synthetic=True,
        )
        for _ in range(500)
    ]
    spool = SpoolState(f"{plant.model}-2", plant.model, 2, plant.now)
    store_records(plant.ledger, sent, [], spool)
    run(plant, settled(plant, 2))
    assert tag(plant, 2) == "promoted"


def test_labels_are_joined_with_the_scores_of_both_versions(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.labelled = True
    plant.register(seed=1)
    run(plant, settled(plant, 2))
    events = history(plant.ledger, plant.model, kind=StepFinished)
    assert events[-1].details.observations["ROC AUC"]["labels"] > 50


def test_labels_are_joined_with_the_score_that_the_manifest_judges(plant: Plant) -> None:
    one = plant.request(1)
    outputs = {"probability": [0.5], "novelty": [0.9]}
    record = msgspec.structs.replace(one, outputs=outputs, time=1001.0)
    label = LabelRecord(one.id, 0, plant.model, 1, 1.0, 1002.0, "a test")
    store_records(plant.ledger, [record], [label], SpoolState("a", plant.model, 1, 1005.0))
    versions = VersionCache(plant.registry, plant.model, plant.folder / "cache")
    build_version(versions.cache / f"{plant.model}-v1", plant.model, judged="novelty")
    assert versions.manifest(Content(1)).answer.risk.score == "probability"
    reader = EvidenceReader(plant.ledger, versions, plant.model, clock=lambda: 1010.0)
    rolled_out = RolloutState(phase="canary", version=1, stable=1, started=1000.0, since=1000.0)
    found, error = reader.read(rolled_out, POLICY, "")
    assert found is not None, error
    labelled = found.new.labelled["novelty"]
    assert labelled.target.tolist() == [1.0]
    assert {name: x.tolist() for name, x in labelled.scores.items()} == {"novelty": [0.9]}


def test_labels_other_than_0_and_1_are_no_evidence(plant: Plant) -> None:
    sent = [msgspec.structs.replace(plant.request(1), time=1001.0 + n) for n in range(4)]
    labels = [
        LabelRecord(one.id, 0, plant.model, 1, value, 1005.0, "a test")
        for one, value in zip(sent, (0.0, 92.5, -1.0, 1.0), strict=True)
    ]
    store_records(plant.ledger, sent, labels, SpoolState("a", plant.model, 1, 1009.0))
    versions = VersionCache(plant.registry, plant.model, plant.folder / "cache")
    build_version(versions.cache / f"{plant.model}-v1", plant.model)
    reader = EvidenceReader(plant.ledger, versions, plant.model, clock=lambda: 1010.0)
    rolled_out = RolloutState(phase="canary", version=1, stable=1, started=1000.0, since=1000.0)
    found, error = reader.read(rolled_out, POLICY, "")
    assert found is not None, error
    assert [x.target.tolist() for x in found.new.labelled.values()] == [[0.0, 1.0]]


def test_a_step_goes_on_with_a_state_of_a_release_without_digests(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register(seed=1)
    run(plant, lambda: state(plant).phase == "canary" and state(plant).since is not None)
    route = plant.platform.written
    assert route is not None
    plant.platform.written = Route(route.weights, {**route.state, "digests": ""})
    run(plant, settled(plant, 2))


def test_a_step_waits_for_the_sidecars(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, lambda: state(plant).canary_percent == 10)
    plant.shipping = False
    for _ in range(40):
        plant.turn()
    assert state(plant).canary_percent == 10


def test_events_are_published_when_the_ledger_is_up_again(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, lambda: state(plant).canary_percent == 10)
    plant.shipping = False
    database = Path(plant.ledger.engine.url.database or "")
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE events RENAME TO gone")
    plant.platform.standing_commands = RolloutCommands(promote=2)
    caplog.clear()
    caplog.set_level(logging.INFO)
    run(plant, lambda: state(plant).production == 2)
    for _ in range(40):
        plant.turn()
    lines = [r for r in caplog.records if "ledger" in r.message and r.levelno == logging.WARNING]
    assert len(lines) == 1
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE gone RENAME TO events")
    connection.close()
    plant.shipping = True
    plant.now += 60
    run(plant, settled(plant, 2))
    kinds = [e.kind for e in history(plant.ledger, plant.model, version=2)]
    assert kinds == ["begun", "step", "promoted", "watched"]


def test_a_registry_that_is_down_is_called_less_and_less_often(
    plant: Plant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    plant.registry = Registry(f"http://127.0.0.1:{free_port()}")
    plant.restart()
    caplog.set_level(logging.INFO)
    for _ in range(30):
        plant.turn()
    counted = generate_latest(plant.controller.metrics.registry).decode()
    errors = [line for line in counted.splitlines() if 'dependency="registry"' in line]
    assert 2 < float(errors[0].split()[-1]) < 6
    warnings = [r for r in caplog.records if r.name.startswith("watchkeeper") and r.levelno > 20]
    assert len(warnings) == 1


def test_only_the_holder_of_the_lease_changes_anything(plant: Plant) -> None:
    plant.register()
    plant.platform.acquire = lambda _lease: False  # type: ignore[method-assign]
    for _ in range(10):
        assert plant.turn() is None
    assert plant.platform.written is None


def test_the_lease_is_released_at_the_end_if_the_platform_answers(plant: Plant) -> None:
    released: list[str] = []
    plant.platform.release = released.append  # type: ignore[method-assign]
    plant.controller.end()
    assert released == [f"rollout-{plant.controller.model}"]

    def fails(_lease: str) -> None:
        raise PlatformError("it does not answer")

    plant.platform.release = fails  # type: ignore[method-assign]
    plant.controller.end()  # the lease expires


def test_metrics_and_health_over_http() -> None:
    metrics, now = RolloutMetrics(), [0.0]
    metrics.set_traffic("pump", {1: 90, 2: 10}, {}, 10)
    metrics.set_traffic("pump", {1: 100}, {1: 90, 2: 10}, 0)
    health = Health(["pump", "press"], 10, lambda: now[0])
    server = serve(metrics, health, "127.0.0.1", 0)
    root = f"http://127.0.0.1:{server.server_port}"
    try:
        text = httpx.get(f"{root}/metrics").text
        assert 'watchkeeper_rollout_weight_percent{model="pump",version="1"} 100.0' in text
        assert 'version="2"' not in text
        assert httpx.get(f"{root}/healthz").status_code == 200
        now[0] = 11.0
        health.beat("pump")
        answer = httpx.get(f"{root}/healthz")
        assert (answer.status_code, answer.text) == (503, "no turn has ended lately: press\n")
        health.beat("press")
        assert httpx.get(f"{root}/healthz").status_code == 200
        assert httpx.get(f"{root}/elsewhere").status_code == 404
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WATCHKEEPER_ROLLOUT_POLICY", '{"step_second": 6}', "step_second"),
        ("WATCHKEEPER_LEDGER_URL", "oracle://host", "oracle is not supported"),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(variable: str, value: str, message: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "watchkeeper.rollout"],
        env={
            "WATCHKEEPER_MODELS": '["pump"]',
            "WATCHKEEPER_LEDGER_URL": "sqlite://",
            "WATCHKEEPER_PLATFORM": "local:/nowhere",
            "WATCHKEEPER_PORT": "0",
            variable: value,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert message in ended.stderr
