"""Workers of a search: they share one study, and the death of one does not stop the others."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import killing_forest
import msgspec
import numpy as np
import optuna
import pump_failure
import pumps
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from waiting import wait_for

from watchkeeper.training import CannotTrainError, SearchInterruptedError, trials
from watchkeeper.training.declaration import Integer, Model, Search
from watchkeeper.training.objective import Objective
from watchkeeper.training.search import search
from watchkeeper.training.split import Parts, split
from watchkeeper.training.study import (
    MESSAGE,
    create_study,
    fail_running,
    is_enough,
    load_study,
    results,
)
from watchkeeper.training.study_storage import open_storage
from watchkeeper.training.trials import work
from watchkeeper.training.usable import usable

MODEL = pump_failure.MODEL
SMALL = msgspec.convert({"trees": 10}, MODEL.parameters)
COUNT = 6
FAIL = TrialState.FAIL


@pytest.fixture(scope="module")
def parts() -> Parts:
    rows = usable(pumps.readings(2000).set_index("id"), MODEL, "a test")
    return split(rows, rows.where(np.zeros(len(rows), dtype=bool)), MODEL)


@pytest.fixture
def objective(parts: Parts) -> Objective:
    return objective_of(MODEL, parts)


def objective_of(model: Model, parts: Parts) -> Objective:
    half = np.arange(len(parts.train)) % 2 == 0
    space: dict[str, Any] = {"leaf": Integer(1, 50)}
    searching = msgspec.structs.replace(model, search=Search(space, trials=COUNT))
    folds = [half, ~half]
    return Objective(searching, SMALL, space, COUNT, parts.train, parts.blocks, folds)


@pytest.fixture
def storages(tmp_path: Path) -> list[BaseStorage]:
    return [open_storage(tmp_path / "journal"), open_storage(tmp_path / "journal")]


def test_two_workers_share_the_trials_of_one_study(
    parts: Parts, storages: list[BaseStorage]
) -> None:
    """The second worker takes all trials that are left while the first one fits."""
    second: list[optuna.Study] = []
    (head,) = MODEL.heads

    def forest(parameters: Any) -> Any:
        if second:
            work(second.pop(), objective_of(MODEL, parts))
        return pump_failure.forest(parameters)

    heads = (msgspec.structs.replace(head, estimator=forest),)
    shared = objective_of(msgspec.structs.replace(MODEL, heads=heads), parts)
    study = create_study(storages[0], shared)
    second.append(load_study(storages[1], 1))
    work(study, shared)
    found = results(study, shared)
    assert sorted(trial.number for trial in found) == list(range(COUNT))
    assert all(trial.state in ("complete", "pruned") for trial in found)
    first = next(trial for trial in found if trial.number == 0)
    assert all(trial.started >= first.started for trial in found)
    assert all(
        trial.started + trial.seconds <= first.started + first.seconds
        for trial in found
        if trial.number
    )


def test_a_trial_that_a_second_worker_begins_at_the_end_is_left_out(
    objective: Objective, storages: list[BaseStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create_study(storages[0], objective)
    work(study, objective)
    answers = iter([True, False])  # the last trial began after the second worker had looked
    monkeypatch.setattr(trials, "_is_open", lambda *_: next(answers))
    work(load_study(storages[1], 1), objective)
    assert len(study.get_trials()) == COUNT + 1
    assert len(results(study, objective)) == COUNT


def test_a_trial_that_still_runs_when_all_workers_have_ended_has_failed(
    objective: Objective, tmp_path: Path
) -> None:
    study = create_study(open_storage(tmp_path / "journal"), objective)
    study.ask()
    fail_running(load_study(open_storage(tmp_path / "journal"), 1))
    (lost,) = results(study, objective)
    assert (lost.state, lost.message) == ("failed", "its process has ended")


def test_a_killed_worker_does_not_hold_the_lock_of_the_journal(
    objective: Objective, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    journal.touch()
    code = (
        "import sys, pathlib; from watchkeeper.training.study_storage import _FileLock\n"
        "_FileLock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(journal)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        created: list[optuna.Study] = []
        thread = threading.Thread(
            target=lambda: created.append(create_study(open_storage(journal), objective))
        )
        thread.start()
        holder.send_signal(signal.SIGKILL)
        thread.join(20)
    assert created


@pytest.mark.parametrize("half", [b'{"op_code":4,"wor', b"{"])
def test_a_worker_that_is_killed_while_it_writes_leaves_a_journal_that_can_be_read(
    objective: Objective, storages: list[BaseStorage], tmp_path: Path, half: bytes
) -> None:
    journal = tmp_path / "journal"
    study = create_study(storages[0], objective)
    with journal.open("ab") as file:
        file.write(half)
    study.ask()
    load_study(storages[1], 1).ask()
    reader = load_study(open_storage(journal), 2)
    assert [trial.number for trial in reader.get_trials()] == [0, 1]
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING] * 2


def test_a_killed_worker_loses_its_trial_and_the_other_one_carries_out_the_rest(
    parts: Parts, tmp_path: Path
) -> None:
    model = killing_forest.model(first=3, last=50, workers=2)
    found = search(model, SMALL, frozenset(), parts, tmp_path)
    numbered = {trial.number: trial for trial in found.trials}
    assert sorted(numbered) == list(range(6))
    assert numbered[1].parameters == {"leaf": 3}
    assert numbered[1].state == "failed"
    assert numbered[1].message == "its process has ended"
    assert numbered[0].state == "complete"
    best = found.trials[0]
    assert (best.value or 0.0) >= (numbered[0].value or 0.0)
    assert msgspec.to_builtins(found.parameters)["leaf"] == best.parameters["leaf"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("leaf", "first", "last"), [(102, 101, 200)])
def test_if_all_workers_are_lost_the_run_can_start_again(
    parts: Parts, tmp_path: Path, leaf: int, first: int, last: int
) -> None:
    model = killing_forest.model(first, last, workers=2)
    parameters = msgspec.structs.replace(SMALL, leaf=leaf)
    with pytest.raises(SearchInterruptedError, match="workers have ended with an error"):
        search(model, parameters, frozenset(), parts, tmp_path)


@pytest.mark.parametrize("leaf", [3, 4])
def test_the_run_can_start_again_if_the_trial_of_the_defaults_is_lost(
    parts: Parts, tmp_path: Path, leaf: int
) -> None:
    model = killing_forest.model(first=20, last=50, workers=2)
    parameters = msgspec.structs.replace(SMALL, leaf=leaf)
    with pytest.raises(SearchInterruptedError):
        search(model, parameters, frozenset(), parts, tmp_path)


def test_a_search_that_has_lost_workers_needs_the_declared_number_of_trials(
    objective: Objective,
) -> None:
    study = create_study(open_storage(None), objective)
    for number in range(COUNT):
        assert not is_enough(study, objective)
        study.ask()
        study.tell(number, 0.5 if number < 3 else None, state=None if number < 3 else FAIL)
    assert is_enough(study, objective)


def test_a_search_that_has_lost_workers_needs_one_complete_trial(objective: Objective) -> None:
    study = create_study(open_storage(None), objective)
    study.ask().set_user_attr(MESSAGE, "a reason")
    study.tell(0, state=FAIL)
    for number in range(1, COUNT):
        study.ask()
        study.tell(number, state=FAIL)
    assert not is_enough(study, objective)


def test_functions_without_a_name_cannot_be_sent_to_workers(parts: Parts, tmp_path: Path) -> None:
    def forest(parameters: Any) -> Any:
        return pump_failure.forest(parameters)

    (head,) = MODEL.heads
    model = msgspec.structs.replace(
        MODEL,
        heads=(msgspec.structs.replace(head, estimator=forest),),
        search=Search({"leaf": Integer(1, 50)}, workers=2),
    )
    with pytest.raises(CannotTrainError, match=r"workers is 2.*define its functions by name"):
        search(model, SMALL, frozenset(), parts, tmp_path)


def test_workers_end_with_the_process_that_has_started_them(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, pathlib, sys, threading\n"
        "from watchkeeper.training.search_workers import _end_with_parent\n"
        "import orphan\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    context.Process(target=orphan.wait, args=(_end_with_parent, sys.argv[1])).start()\n"
        "    sys.stdin.read()\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    (tmp_path / "orphan.py").write_text(
        "import os, pathlib, threading\n"
        "def wait(end_with_parent, place):\n"
        "    threading.Thread(target=end_with_parent, daemon=True).start()\n"
        "    pathlib.Path(place).write_text(str(os.getpid()))\n"
        "    threading.Event().wait()\n"
    )
    place = tmp_path / "pid"
    with subprocess.Popen([sys.executable, script, place], stdin=subprocess.PIPE) as parent:
        wait_for(lambda: place.exists() and place.read_text(), what="the worker has started")
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not _exists(int(place.read_text())), what="the worker has ended")


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
