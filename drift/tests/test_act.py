import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
from world import MODEL, Runs, labels_for, predictions, rows

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.drift.act import Actor
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import Attempt, attempts, episodes, save_attempt
from watchkeeper.ledger.events import Event, emit, history
from watchkeeper.ledger.reports import DriftReport, save_report
from watchkeeper.ledger.store import SpoolState, ship

POLICY = DriftPolicy(
    confirm=2,
    clean_windows=2,
    minimum_labels=10,
    minimum_positives=0,
    cool_down=100.0,
    maximum_attempts=2,
)


def requests(ledger: Ledger, first: int, count: int, *, labelled: bool, version: int = 1) -> None:
    data = predictions(rows(count, first), first=first, version=version)
    spool = SpoolState(f"s{version}", MODEL, version, 0.0)
    ship(ledger, data, labels_for(data) if labelled else [], spool)


def window(ledger: Ledger, end: float, verdict: str, version: int = 1) -> None:
    told = {"verdict": verdict, "features": [{"name": "torque", "drifted": verdict == "drifted"}]}
    drifted = verdict == "drifted"
    save_report(ledger, DriftReport(MODEL, version, end - 10, end, drifted, told))


def drift(ledger: Ledger) -> None:
    """Two drifted windows after a clean one, and twenty labelled requests since."""
    window(ledger, 1000.0, "clean")
    window(ledger, 1005.0, "drifted")
    window(ledger, 1010.0, "drifted")
    requests(ledger, 1, 20, labelled=True)


def actor(ledger: Ledger, platform: Runs, version: int = 1) -> Actor:
    return Actor(ledger, platform, MODEL, version, policy=POLICY)  # type: ignore[arg-type]


def turns(ledger: Ledger, platform: Runs, version: int = 1) -> None:
    for _ in range(4):
        actor(ledger, platform, version).turn()


def said(ledger: Ledger, run: str, kind: str, version: int, time: float) -> None:
    emit(ledger, Event(f"{version}/{kind}/{time}", MODEL, version, kind, time, kind, {"run": run}))


def states(ledger: Ledger) -> list[str]:
    events = history(ledger, MODEL, kind="episode")
    return [f"{e.details['state']} {e.details['attempt']}" for e in events]


def test_confirmed_drift_with_labels_starts_one_run(ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    (run,) = platform.started
    assert (run.name, run.episode, run.replaces) == (f"{MODEL}-v1-a1", f"{MODEL}-v1-e1", 1)
    assert run.trigger == "drift of torque"
    assert states(ledger) == ["waiting-for-labels 0", "training 1"]
    events = history(ledger, MODEL, kind="episode")
    assert events[0].id == f"{MODEL}-v1-e1/waiting-for-labels/0"
    assert all(e.details["policy"] == msgspec.to_builtins(POLICY) for e in events)


def test_a_rejected_attempt_is_followed_by_another_up_to_the_limit(ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-rejected", 2, 1100.0)
    turns(ledger, platform)
    assert len(platform.started) == 1, "it has to cool down first"
    requests(ledger, 200, 1, labelled=False)
    turns(ledger, platform)
    assert [run.name for run in platform.started] == [f"{MODEL}-v1-a1", f"{MODEL}-v1-a2"]
    platform.states[f"{MODEL}-v1-a2"] = "failed"
    turns(ledger, platform)
    requests(ledger, 900, 1, labelled=False)
    turns(ledger, platform)
    assert len(platform.started) == 2
    assert states(ledger)[1:] == ["training 1", "cool-down 1", "training 2", "given-up 2"]
    window(ledger, 2000.0, "clean")
    window(ledger, 2005.0, "clean")
    turns(ledger, platform)
    assert states(ledger)[-1] == "clean 2"


def test_a_promotion_closes_the_episode_and_a_rollback_does_not(ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-passed", 2, 1100.0)
    said(ledger, "", "rolled-back", 2, 1101.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"
    requests(ledger, 200, 1, labelled=False)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a2", "gate-passed", 3, 1200.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "training 2"
    said(ledger, "", "promoted", 3, 1201.0)
    requests(ledger, 300, 1, labelled=False, version=3)
    turns(ledger, platform, version=3)
    assert states(ledger)[-1] == "promoted 2"
    assert len(platform.started) == 2


def test_a_promotion_that_is_rolled_back_counts_as_an_attempt(ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-passed", 2, 1100.0)
    said(ledger, "", "promoted", 2, 1101.0)
    requests(ledger, 101, 1, labelled=False, version=2)
    turns(ledger, platform, version=2)
    assert states(ledger)[-1] == "promoted 1"
    said(ledger, "", "rolled-back", 2, 1102.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"
    requests(ledger, 300, 1, labelled=False)
    turns(ledger, platform)
    assert [run.name for run in platform.started] == [f"{MODEL}-v1-a1", f"{MODEL}-v1-a2"]
    assert len(episodes(ledger, MODEL)) == 1


def test_a_run_that_died_before_its_candidate_has_failed(ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-passed", 2, 1100.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "training 1"
    platform.states[f"{MODEL}-v1-a1"] = "failed"
    turns(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"


def test_a_version_that_was_overtaken_before_its_rollout_counts_as_an_attempt(
    ledger: Ledger,
) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-passed", 2, 1100.0)
    said(ledger, "by-hand", "gate-passed", 3, 1101.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "training 1"
    said(ledger, "", "rolled-back", 2, 1102.0)  # as the rollout says when 3 becomes candidate
    said(ledger, "", "begun", 3, 1103.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"
    said(ledger, "", "promoted", 3, 1104.0)
    requests(ledger, 300, 1, labelled=False, version=3)
    turns(ledger, platform, version=3)
    assert states(ledger)[-1] == "promoted 1"
    assert len(platform.started) == 1


def test_a_step_and_the_rollback_that_it_ends_in_have_one_time_and_the_rollback_counts(
    ledger: Ledger,
) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-passed", 2, 1100.0)
    said(ledger, "", "begun", 2, 1101.0)
    said(ledger, "", "step", 2, 1102.0)
    said(ledger, "", "rolled-back", 2, 1102.0)
    turns(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"


@pytest.mark.parametrize("taken_up", ["begun", "step"])
def test_a_run_that_the_rollout_has_taken_up_is_waited_for(ledger: Ledger, taken_up: str) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-passed", 2, 1100.0)
    said(ledger, "", taken_up, 2, 1101.0)
    platform.states[f"{MODEL}-v1-a1"] = "failed"
    turns(ledger, platform)
    assert states(ledger)[-1] == "training 1"


def test_a_finished_run_is_not_started_again_when_its_job_has_been_deleted(ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    turns(ledger, platform)
    said(ledger, f"{MODEL}-v1-a1", "gate-rejected", 2, 1100.0)
    platform.states.clear()
    turns(ledger, platform)
    assert len(platform.started) == 1


def test_no_name_of_a_run_by_hand_is_used_again(ledger: Ledger) -> None:
    platform = Runs()
    platform.states[f"{MODEL}-v1-a4"] = "succeeded"
    save_attempt(ledger, Attempt(f"{MODEL}-v1-a5", None, MODEL, "manual", 1.0))
    drift(ledger)
    turns(ledger, platform)
    assert [run.name for run in platform.started] == [f"{MODEL}-v1-a6"]


class Killed(BaseException):
    """Stands for the end of the process at one line."""


def killed_at(line: int, call: Any) -> bool:
    """Call and end at the ``line``-th line of all that acts or stores; False if it got through."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        name = frame.f_code.co_filename
        if not name.endswith(("drift/act.py", "ledger/episodes.py", "ledger/events.py")):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


def kill_points(tmp_path: Path) -> Iterator[tuple[Ledger, Runs, int]]:
    """Begin with the same confirmed drift again and again, each time for another line."""
    for line in range(1, 10_000):
        url = f"sqlite:///{tmp_path}/{line}.db"
        if line == 1:
            migrate(f"sqlite:///{tmp_path}/template.db")
            template = Ledger(f"sqlite:///{tmp_path}/template.db")
            drift(template)
            actor(template, Runs()).turn()  # the episode is open, and has labels enough
            template.close()
        shutil.copy(tmp_path / "template.db", tmp_path / f"{line}.db")
        ledger = Ledger(url)
        # Another process has it open too, or every transaction would end with a checkpoint.
        other = sqlite3.connect(tmp_path / f"{line}.db")
        other.execute("SELECT * FROM episodes").fetchall()
        yield ledger, Runs(), line
        other.close()
        ledger.close()
        (tmp_path / f"{line}.db").unlink()


def test_killed_at_any_line_there_is_exactly_one_run_for_the_attempt(tmp_path: Path) -> None:
    tried = 0
    for ledger, platform, line in kill_points(tmp_path):
        going = actor(ledger, platform)
        if not killed_at(line, going.turn):
            break
        tried += 1
        for _ in range(2):
            actor(ledger, platform).turn()
        assert [run.name for run in platform.started] == [f"{MODEL}-v1-a1"], line
        assert [a.run for a in attempts(ledger, MODEL)] == [f"{MODEL}-v1-a1"], line
        (episode,) = episodes(ledger, MODEL)
        assert (episode.state, episode.attempt) == ("training", 1), line
        assert states(ledger) == ["waiting-for-labels 0", "training 1"], line
    assert tried > 100


def test_without_the_ledger_no_run_is_asked_for(tmp_path: Path, ledger: Ledger) -> None:
    platform = Runs()
    drift(ledger)
    actor(ledger, platform).turn()
    working = actor(ledger, platform)
    ledger.close()
    (tmp_path / "ledger.db").rename(tmp_path / "away.db")
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(Exception, match="unable to open database file"):
        working.turn()
    assert platform.started == []
    (tmp_path / "ledger.db").rmdir()
    (tmp_path / "away.db").rename(tmp_path / "ledger.db")
    turns(ledger, platform)
    assert len(platform.started) == 1
