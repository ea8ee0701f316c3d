from pathlib import Path
from typing import Any

import msgspec
import pytest
from world import MODEL, Rows, Runs, make_version, predictions, rows

from watchkeeper.contracts.policies import DriftPolicy, override
from watchkeeper.contracts.record import Prediction
from watchkeeper.contracts.version import BrokenVersionError
from watchkeeper.drift.lease import Lease
from watchkeeper.drift.settings import Settings
from watchkeeper.drift.watch import Watch
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import episodes
from watchkeeper.ledger.events import Event, emit, history
from watchkeeper.ledger.reports import reports
from watchkeeper.ledger.store import SpoolState, ship

WINDOW = 200
CHANGES = {"window": WINDOW, "every": 50, "minimum_labels": 10**9}


class World:
    """A version in production with its reference, a ledger, and a watch over it."""

    def __init__(self, folder: Path, ledger: Ledger, reference: Rows, **changes: Any) -> None:
        self.ledger, self.platform = ledger, Runs()
        self.sent = 0
        settings = Settings(MODEL, 1, folder / "version", folder, "", "", 0)
        policy = override(DriftPolicy(), {**CHANGES, **changes})
        manifest = make_version(settings.model_folder, reference, policy)
        emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))
        lease = Lease(lambda: self.platform, MODEL, 1)  # type: ignore[arg-type,return-value]
        self.watch = Watch(settings, ledger, lease, manifest, policy)

    def serve(self, data: Rows, each: int = 1) -> list[Prediction]:
        sent = predictions(data, first=self.sent, each=each)
        self.take(sent)
        return sent

    def take(self, sent: list[Prediction]) -> None:
        self.sent += len(sent)
        ship(self.ledger, sent, [], SpoolState("s", MODEL, 1, 0.0))

    def look(self) -> dict[str, Any]:
        while self.watch.turn():
            pass
        return self.watch.view

    def verdicts(self) -> list[str]:
        return [r.report["verdict"] for r in reports(self.ledger, MODEL, 1, newest=1000)]

    def feature(self, name: str) -> dict[str, Any]:
        return next(f for f in self.watch.view["features"] if f["name"] == name)


@pytest.fixture
def world(tmp_path: Path, ledger: Ledger) -> World:
    return World(tmp_path, ledger, rows(2000, 1))


def test_a_replay_without_drift_raises_no_alarm(world: World) -> None:
    world.serve(rows(4000, 2))
    view = world.look()
    assert world.verdicts() == ["clean"] * (1 + (4000 - WINDOW) // 50)
    assert view["episode"] is None
    assert view["window"]["rows"] == WINDOW
    assert {f["name"] for f in view["features"]} == {
        "kind",
        "heat",
        "speed",
        "torque",
        "wear",
        "score",
    }


def test_strong_drift_opens_an_episode_within_a_window(world: World) -> None:
    world.serve(rows(400, 2))
    world.look()
    world.serve(rows(WINDOW, 3, stronger=15.0))
    view = world.look()
    assert view["verdict"] == "drifted"
    (episode,) = episodes(world.ledger, MODEL)
    assert (episode.id, episode.state) == (f"{MODEL}-v1-e1", "waiting-for-labels")
    assert episode.onset == pytest.approx(1000 + 399, abs=101)
    torque = world.feature("torque")
    assert torque["drifted"]
    assert torque["z"] == pytest.approx(1.5, abs=0.2)
    assert torque["p_value"] < 0.001 < torque["null_threshold"] < torque["effect_size"]
    assert not world.feature("wear")["drifted"]
    assert world.feature("score")["drifted"]


def test_drift_of_a_category_is_seen(world: World) -> None:
    data = rows(WINDOW, 2)
    data["kind"] = ["H"] * WINDOW
    world.serve(data)
    world.look()
    kind = world.feature("kind")
    assert kind["drifted"]
    assert kind["effect_size"] == pytest.approx(0.8, abs=0.05)
    assert kind["window"] == {"H": 1.0}
    assert kind["z"] is None


def test_the_episode_of_a_drift_that_passes_ends_clean(world: World) -> None:
    world.serve(rows(400, 2))
    world.serve(rows(200, 3, stronger=15.0))
    world.serve(rows(800, 4))
    world.look()
    events = history(world.ledger, MODEL, kind="episode")
    assert [e.details["state"] for e in events] == ["waiting-for-labels", "clean"]
    assert world.platform.started == []


def test_rows_of_large_requests_count_as_rows(world: World) -> None:
    world.serve(rows(1200, 2), each=30)
    view = world.look()
    assert view["window"]["rows"] == WINDOW
    assert len(world.verdicts()) >= (1200 - WINDOW) // 60


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [("heat", 300.0, "stuck"), ("torque", 999.0, "out of range"), ("kind", "X", "out of range")],
)
def test_a_broken_sensor_is_an_alert_and_never_a_drift(
    world: World, column: str, value: object, what: str
) -> None:
    world.serve(rows(400, 2))
    for seed in range(16):  # the sensor fails slowly seen from the windows: every one counts
        data = rows(25, 100 + seed)
        data[column] = [value] * 25
        if column != "kind":
            data["score"] = [0.99] * 25
        world.serve(data)
        world.look()
    assert "drifted" not in world.verdicts()
    assert what in world.watch.view["sensors"][column]["what"]
    assert episodes(world.ledger, MODEL) == []
    (alert,) = history(world.ledger, MODEL, kind="sensor-broken")
    assert (alert.details["column"], alert.version) == (column, 1)
    assert "broken sensor" in world.feature(column)["left_out"]
    world.serve(rows(400, 4))
    assert world.look()["sensors"] == {}
    assert world.verdicts()[-1] == "clean"


def test_requests_refused_for_a_column_are_a_broken_sensor(world: World) -> None:
    world.serve(rows(400, 2))
    sent = predictions(rows(150, 3), first=world.sent)
    why = "column 'torque': null is not a number"
    world.take(
        [
            msgspec.structs.replace(p, status="INVALID_ARGUMENT", error=why, inputs={}, outputs={})
            for p in sent
        ]
    )
    view = world.look()
    assert view["verdict"] == "undecided"
    assert "refused in 150" in view["sensors"]["torque"]["what"]
    assert list(view["sensors"]) == ["torque"]


def test_a_broken_sensor_hides_no_drift_of_others(world: World) -> None:
    data = rows(WINDOW, 3, stronger=20.0)
    data["heat"] = [300.0] * WINDOW
    world.serve(data)
    view = world.look()
    assert view["verdict"] == "drifted"
    assert view["reason"] == "drift of speed, torque"


def test_a_short_reference_is_told_and_raises_no_alarm(tmp_path: Path, ledger: Ledger) -> None:
    world = World(tmp_path, ledger, rows(600, 1), window=500, every=125)
    world.serve(rows(4000, 2))
    view = world.look()
    assert set(world.verdicts()) == {"clean"}
    assert "600 rows" in view["reference"]["note"]
    assert view["reference"]["block_rows"] == 150
    world.serve(rows(500, 3, stronger=20.0))
    assert world.look()["verdict"] == "drifted"


def test_another_process_goes_on_with_the_next_window(world: World, tmp_path: Path) -> None:
    world.serve(rows(420, 2))
    world.look()
    seen = [r.window_end for r in reports(world.ledger, MODEL, 1, newest=100)]
    successor = World.__new__(World)
    successor.__dict__.update(world.__dict__)
    settings = Settings(MODEL, 1, tmp_path / "version", tmp_path, "", "", 0)
    successor.watch = Watch(
        settings,
        world.ledger,
        Lease(lambda: world.platform, MODEL, 1),  # type: ignore[arg-type,return-value]
        world.watch._manifest,
        world.watch._policy,
    )
    successor.look()
    assert [r.window_end for r in reports(world.ledger, MODEL, 1, newest=100)] == seen
    world.serve(rows(30, 3))
    successor.look()
    assert len(reports(world.ledger, MODEL, 1, newest=100)) == len(seen) + 1


def test_only_production_watches(world: World) -> None:
    emit(world.ledger, Event("next", MODEL, 2, "promoted", 2.0, "second"))
    world.serve(rows(400, 2, stronger=30.0))
    view = world.look()
    assert (view["watching"], view["features"], world.verdicts()) == (False, [], [])
    assert "production is version 2" in view["reason"]


def test_only_the_holder_of_the_lease_watches(world: World) -> None:
    world.platform.holder = False
    world.serve(rows(400, 2, stronger=30.0))
    assert not world.look()["watching"]
    assert world.verdicts() == []


def test_a_reference_that_is_missing_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "version" / "reference.parquet").unlink()
    with pytest.raises(BrokenVersionError, match=r"reference\.parquet"):
        world.look()
