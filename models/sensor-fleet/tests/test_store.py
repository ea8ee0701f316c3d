"""The stored fleet: rows, late labels, the truth about them, on each kind of database."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sensor_fleet.plant import tables
from sensor_fleet.plant.scenarios import SCENARIOS, STEADY
from sensor_fleet.plant.simulation import HORIZON_TURNS
from sensor_fleet.plant.store import Store
from stored import HISTORY, MACHINES, SEED, everything, rows

from watchkeeper.demo.plants import PlantError

TURNS = 40  # after the history


def store_fleet(url: str, scenario: str = STEADY.name, turns: int = TURNS) -> str:
    with Store(url) as store:
        store.seed(SEED, machines=MACHINES, turns=HISTORY)
        for _ in range(turns):
            store.advance(SEED, SCENARIOS[scenario])
    return url


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_fleet(f"sqlite:///{tmp_path_factory.mktemp('fleet')}/new/fleet.db")


@pytest.fixture(scope="module")
def readings(url: str) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in rows(url, tables.readings)}


@pytest.fixture(scope="module")
def maintained(url: str) -> dict[int, str]:
    return {row["id"]: row["reason"] for row in rows(url, tables.maintenance)}


def test_the_same_seed_stores_the_same_rows_on_each_kind_of_database(
    url: str, database_url: str
) -> None:
    assert everything(store_fleet(database_url)) == everything(url)


def test_the_history_is_stored_once_and_an_interrupted_one_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/fleet.db"
    done: list[int] = []

    def fail(*arguments: Any) -> Any:
        done.append(arguments[2])
        if len(done) > 5:
            raise ConnectionError("gone")
        return real(*arguments)

    with Store(url) as store:
        from sensor_fleet.plant import store as module  # noqa: PLC0415

        real = module.store_turn
        monkeypatch.setattr(module, "store_turn", fail)
        with pytest.raises(ConnectionError):
            store.seed(SEED, machines=MACHINES, turns=HISTORY)
        assert rows(url, tables.readings) == []
        monkeypatch.undo()
        labelled = (HISTORY - HORIZON_TURNS) * MACHINES
        assert store.seed(SEED, machines=MACHINES, turns=HISTORY) == labelled
        assert store.seed(99, machines=3, turns=5) == labelled
    assert len(rows(url, tables.readings)) == HISTORY * MACHINES


def test_a_label_says_whether_the_machine_fails_within_a_day(
    readings: dict[int, dict[str, Any]], maintained: dict[int, str]
) -> None:
    turns = HISTORY + TURNS
    assert list(readings) == list(range(1, turns * MACHINES + 1))
    for number, row in readings.items():
        next_ones = [number + MACHINES * turn for turn in range(1, HORIZON_TURNS + 1)]
        fails = any(maintained.get(other) == "failure" for other in next_ones)
        over = next_ones[-1] in readings
        assert row[tables.LABEL] == (1 if fails else 0 if over else None), number
    assert {row[tables.LABEL] for row in readings.values()} == {0, 1, None}


def test_the_truth_names_the_first_failure_after_a_reading(
    url: str, readings: dict[int, dict[str, Any]], maintained: dict[int, str]
) -> None:
    for row in rows(url, tables.truth):
        failure, reading = row["failure_id"], readings[row["reading_id"]]
        assert (failure is not None) == (reading[tables.LABEL] == 1)
        if failure is not None:
            between = range(row["reading_id"] + MACHINES, failure, MACHINES)
            assert maintained[failure] == "failure"
            assert all(maintained.get(other) != "failure" for other in between)
            assert 0 < readings[failure]["time"] - reading["time"] <= 24 * 3600


def test_the_truth_names_scenario_wear_and_broken_sensor(tmp_path: Path) -> None:
    url = store_fleet(f"sqlite:///{tmp_path}/fleet.db", "heat-wave", turns=120)
    truth = rows(url, tables.truth)
    assert [row["scenario"] for row in truth[:: HISTORY * MACHINES]][:2] == ["steady", "heat-wave"]
    shown = {row["id"]: row for row in rows(url, tables.readings)}
    broken = [row for row in truth if row["broken_sensor"]]
    assert 0 < len(broken) < 0.05 * len(truth)
    for row in broken:
        if row["fault"] == "zero":
            assert shown[row["reading_id"]][row["broken_sensor"]] == 0.0
    for row in rows(url, tables.maintenance):
        assert truth[row["id"] - 1]["wear"] == 0.0


def test_processes_at_the_same_time_take_turns(database_url: str) -> None:
    """No gap and no duplicate, and the same rows as one process stores."""
    store_fleet(database_url, turns=0)

    def advance(_: int) -> None:
        with Store(database_url) as store:
            for _ in range(10):
                store.advance(SEED, STEADY)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(advance, range(4), timeout=120.0))
    state = rows(database_url, tables.state)[0]
    assert state["turns"] == HISTORY + 40
    count = state["turns"] * MACHINES
    assert [row["id"] for row in rows(database_url, tables.readings)] == list(range(1, count + 1))


def test_a_database_without_a_fleet_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    engine = sqlalchemy.create_engine(url)
    tables.metadata.create_all(engine)
    engine.dispose()
    with Store(url) as store, pytest.raises(PlantError, match=r"empty\.db: fleet_state is empty"):
        store.advance(SEED, STEADY)
