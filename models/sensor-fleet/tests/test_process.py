"""The process of the fleet: killed at any point, it continues without gap or duplicate."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from sensor_fleet.plant import SEED, TURNS, tables
from sensor_fleet.plant.scenarios import SCENARIOS
from sensor_fleet.plant.store import Store
from sqlalchemy import func, select
from stored import MACHINES, everything
from waiting import wait_for

from watchkeeper.demo.plants import DatabaseError

KILLS = 3


def start(url: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sensor_fleet.plant", "--database", url]
    return subprocess.Popen(
        [*command, "--machines", str(MACHINES), "--seed", "9", *options],
        stderr=subprocess.PIPE,
        text=True,
    )


def stored_turns(url: str) -> int:
    """Return how many turns are stored; 0 before there are tables."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            found = connection.execute(select(func.max(tables.state.c.turns))).scalar()
            return int(found or 0)
    except DatabaseError:
        return 0
    finally:
        engine.dispose()


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


def test_a_killed_process_continues_without_gap_or_duplicate(
    database_url: str, tmp_path: Path
) -> None:
    for _ in range(KILLS):
        known = max(stored_turns(database_url), TURNS)
        process = start(database_url, "--rate", "1000000", "--scenario", "overload")
        try:
            wait_for(lambda known=known: stored_turns(database_url) > known + 10)
        finally:
            end(process, signal.SIGKILL)
    turns = stored_turns(database_url)
    assert turns > TURNS + KILLS * 10
    whole = f"sqlite:///{tmp_path}/whole.db"
    with Store(whole) as store:
        store.seed(SEED, machines=MACHINES, turns=TURNS)
        for _ in range(turns - TURNS):
            store.advance(9, SCENARIOS["overload"])
    assert everything(database_url) == everything(whole)


def test_it_ends_after_its_turns_and_keeps_its_rate(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fleet.db"
    process = start(url, "--rate", str(MACHINES * 20), "--turns", "10")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert "10 turns stored" in said
    assert stored_turns(url) == TURNS + 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_a_whole_turn(tmp_path: Path, number: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path}/fleet.db"
    process = start(url, "--rate", "1")  # a turn in 12 s: the signal does not wait for the next
    wait_for(lambda: stored_turns(url) == TURNS + 1)
    said = end(process, number)
    assert process.returncode == 0, said
    assert "1 turns stored" in said


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--scenario", "flood"), 1, "sensor-fleet has no scenario 'flood'"),
        (("--rate", "0"), 2, "argument --rate: 0 is not a rate; give a number above 0"),
        (("--machines", "0"), 2, "argument --machines: 0 machines are no fleet"),
    ],
)
def test_wrong_arguments_are_named(
    tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    process = start(f"sqlite:///{tmp_path}/fleet.db", *options)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code
    assert message in said
    assert "Traceback" not in said


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    process = start(f"sqlite:///{tmp_path}")  # a folder
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "unable to open database file" in said
    assert "Traceback" not in said
