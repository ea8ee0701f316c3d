"""The plant of the demonstration: readings with known labels, in their order."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sensor_fleet.plant import MACHINES, PLANT, TURNS, RunningFleet, tables
from sensor_fleet.plant.sensors import DECIMALS
from sensor_fleet.plant.simulation import HORIZON_TURNS
from stored import rows

from watchkeeper.demo.plants import PlantError, RunningPlant, tables_by_model

LABELLED = (TURNS - HORIZON_TURNS) * MACHINES


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path}/operational.db"
    assert PLANT.seed(found) == f"{LABELLED} labelled readings"
    return found


def start(url: str, folder: Path) -> RunningPlant:
    return PLANT.start(url, seed=3, data=None, label_delay=2.0, log=folder / "plant.log")


@pytest.fixture
def running(url: str, tmp_path: Path) -> Iterator[RunningPlant]:
    found = start(url, tmp_path)
    yield found
    found.close()


def test_cases_are_the_stored_readings_with_their_labels(url: str, running: RunningPlant) -> None:
    cases = running.cases(50, "steady") + running.cases(100, "steady")
    stored = rows(url, tables.readings)[LABELLED : LABELLED + 150]
    assert [case.row for case in cases] == [{x: row[x] for x in DECIMALS} for row in stored]
    assert [case.subject for case in cases] == [row["machine"] for row in stored]
    assert [case.outcome for case in cases] == [row[tables.LABEL] for row in stored]


def test_a_plant_that_starts_again_continues(
    url: str, running: RunningPlant, tmp_path: Path
) -> None:
    running.cases(MACHINES, "steady")
    again = start(url, tmp_path)
    assert isinstance(again, RunningFleet)
    (case,) = again.cases(1, "steady")
    again.close()
    assert case.subject == "machine-001"
    assert rows(url, tables.state)[0]["turns"] == TURNS + 2


def test_a_scenario_applies_to_the_turns_that_follow(url: str, running: RunningPlant) -> None:
    running.cases(MACHINES, "steady")
    running.cases((HORIZON_TURNS + 1) * MACHINES, "heat-wave")
    names = [row["scenario"] for row in rows(url, tables.truth)[TURNS * MACHINES :: MACHINES]]
    assert names == ["steady"] + ["heat-wave"] * (HORIZON_TURNS + 1)


def test_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match="sensor-fleet"):
        tables_by_model(["sensor-fleet"], tmp_path / "any.csv")
