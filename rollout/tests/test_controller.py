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
from conftest import free_port
from plant import POLICY, Plant
from prometheus_client import generate_latest
from sqlalchemy import func, select

from watchkeeper.ledger import Ledger
from watchkeeper.ledger import tables as t
from watchkeeper.ledger.events import history, production_version
from watchkeeper.ledger.observations import observations
from watchkeeper.ledger.store import SpoolState, ship
from watchkeeper.platforms import Asks, PlatformError
from watchkeeper.registry import ROLLOUT_TAG, Registry
from watchkeeper.rollout import observe
from watchkeeper.rollout.metrics import Health, Metrics, serve
from watchkeeper.rollout.observe import Collected
from watchkeeper.rollout.state import State, Window, parse


@pytest.fixture
def plant(registry: Registry, ledger: Ledger, tmp_path: Path) -> Plant:
    return Plant(registry, ledger, f"pump-{uuid.uuid4().hex[:8]}", tmp_path)


def state(plant: Plant) -> State:
    route = plant.platform.written
    return parse(route.state) if route else State()


def run(plant: Plant, until: Callable[[], bool], turns: int = 200) -> None:
    for _ in range(turns):
        if until():
            return
        plant.turn()
    raise AssertionError(f"not within {turns} turns: {state(plant)}")


def settled(plant: Plant, production: int) -> Callable[[], bool]:
    return lambda: (
        state(plant).phase == "steady"
        and state(plant).production == production
        and set(plant.platform.pods) == {production}
        and plant.registry.aliases(plant.model).keys() <= {"production", "previous"}
    )


def tag(plant: Plant, version: int) -> str:
    return plant.registry.versions(plant.model)[version - 1].tags.get(ROLLOUT_TAG, "")


def test_versions_come_and_go_with_registry_and_ledger_agreeing(plant: Plant) -> None:
    assert plant.register() == 1
    run(plant, settled(plant, 1))
    assert production_version(plant.ledger, plant.model) == 1

    assert plant.register() == 2
    run(plant, lambda: state(plant).step == 25)
    plant.restart()  # killed: everything it needs is in the world
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
        (e.version, e.details["percent"], e.details["verdict"])
        for e in history(plant.ledger, plant.model, kind="step")
    ]
    assert steps == [(2, 10, "pass"), (2, 25, "pass"), (2, 50, "pass"), (3, 10, "fail")]
    assert set(plant.platform.pods) == {2}


def test_the_share_of_each_step_can_be_counted_from_its_event(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, settled(plant, 2))
    for step in history(plant.ledger, plant.model, kind="step"):
        shares = []
        for version in (1, 2):
            p = t.predictions.c
            counted = select(func.count()).where(
                p.model == plant.model,
                p.version == version,
                p.time >= step.details["since"],
                p.time < step.details["until"],
            )
            with plant.ledger.read() as connection:
                shares.append(connection.execute(counted).scalar_one())
        share, n = step.details["percent"] / 100, sum(shares)
        assert abs(shares[1] - share * n) < 5 * (share * (1 - share) * n) ** 0.5
        assert step.details["observations"]["http errors"]["new"][0] == 0
        assert step.details["policy"]["step_seconds"] == POLICY.step_seconds


def test_live_scores_that_are_not_the_versions_own_take_it_off(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    plant.skewed[2] = 0.001
    run(plant, lambda: tag(plant, 2) != "")
    assert "skew" in tag(plant, 2)


def test_a_version_whose_failures_are_repeated_elsewhere_is_taken_off(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    plant.unanswered[2] = 0.5
    run(plant, lambda: tag(plant, 2) != "")
    assert "errors" in tag(plant, 2)
    seen = observations(plant.ledger, plant.model, 2, since=0.0)
    assert {o.status for o in seen} == {"OK"}, "no client saw an error"


def test_a_clock_that_goes_back_leaves_no_request_out_and_counts_none_twice(plant: Plant) -> None:
    def shipped(number: int, time: float) -> None:
        one = msgspec.structs.replace(plant.request(1), id=f"{number:032x}", time=time)
        ship(plant.ledger, [one], [], SpoolState("a", plant.model, 1, 0.0))

    collected = Collected(Window(1, 1000.0, float("inf")))
    for number in range(10):
        shipped(number, 1000.0 + 10 * number)
    for until in (1050.0, 1100.0):
        collected.extend(plant.ledger, plant.model, (), until)
    assert collected.sample(np.empty((0, 2))).asked("http") == 10
    for number in range(10, 14):  # the clock says 1030 again
        shipped(number, 1025.0 + number)
    for until in (0.0, 1037.0, 1045.0, 1120.0):
        collected.extend(plant.ledger, plant.model, (), until)
    assert collected.sample(np.empty((0, 2))).asked("http") == 14


def test_a_turn_reads_so_many_rows_the_newest_however_few_requests_they_are(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "READ_ROWS", 5000)
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
    ship(plant.ledger, many, [], SpoolState("a", plant.model, 1, 0.0))
    collected = Collected(Window(1, 1000.0, float("inf")))
    collected.extend(plant.ledger, plant.model, ("score",), 1100.0)
    sample = collected.sample(np.empty((0, 2)))
    assert sample.asked("http") == 5
    assert {*sample.scores["score"]} == {15.0, 16.0, 17.0, 18.0, 19.0}


def test_labels_are_joined_with_what_both_versions_answered(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.labelled = True
    plant.register(seed=1)
    run(plant, settled(plant, 2))
    events = history(plant.ledger, plant.model, kind="step")
    assert events[-1].details["observations"]["ROC AUC"]["labels"] > 50


def test_a_step_waits_for_the_sidecars(plant: Plant) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, lambda: state(plant).step == 10)
    plant.shipping = False
    for _ in range(40):
        plant.turn()
    assert state(plant).step == 10


def test_a_ledger_that_is_down_is_waited_for_and_told_everything_later(
    plant: Plant, caplog: pytest.LogCaptureFixture
) -> None:
    plant.register()
    run(plant, settled(plant, 1))
    plant.register()
    run(plant, lambda: state(plant).step == 10)
    plant.shipping = False
    database = Path(plant.ledger.engine.url.database or "")
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE events RENAME TO gone")
    plant.platform.wants = Asks(promote=2)
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


def test_a_registry_that_is_down_is_asked_less_and_less_often(
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


def test_the_lease_is_let_go_at_the_end_if_the_platform_answers(plant: Plant) -> None:
    released: list[str] = []
    plant.platform.release = released.append  # type: ignore[method-assign]
    plant.controller.end()
    assert released == [f"rollout-{plant.controller.model}"]

    def fails(_lease: str) -> None:
        raise PlatformError("it is away")

    plant.platform.release = fails  # type: ignore[method-assign]
    plant.controller.end()  # the lease runs out


def test_metrics_and_health_are_answered_and_the_health_is_of_the_turns() -> None:
    metrics, now = Metrics(), [0.0]
    metrics.show("pump", {1: 90, 2: 10}, {}, 10)
    metrics.show("pump", {1: 100}, {1: 90, 2: 10}, 0)
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
    ("variable", "value", "told"),
    [
        ("WATCHKEEPER_ROLLOUT_POLICY", '{"step_second": 6}', "step_second"),
        ("WATCHKEEPER_LEDGER_URL", "oracle://host", "no ledger is kept in oracle"),
    ],
)
def test_a_setting_that_is_wrong_is_named_before_anything_starts(
    variable: str, value: str, told: str
) -> None:
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
    assert told in ended.stderr
