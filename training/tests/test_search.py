"""The search: which sets are tried, which trials end early, and what the run trains with."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pumps
import pytest
from sklearn.base import BaseEstimator

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_SUCCESS
from watchkeeper.core.gate_report import Trial
from watchkeeper.training import CannotTrainError, check, objective
from watchkeeper.training.declaration import (
    Choice,
    Integer,
    Model,
    Parameters,
    Search,
)
from watchkeeper.training.models import find
from watchkeeper.training.search import SearchResult, search
from watchkeeper.training.split import Parts, split
from watchkeeper.training.usable import usable

MODEL = find("pump-failure")
SMALL = msgspec.convert({"trees": 10}, MODEL.parameters)
WIDE = Search({"leaf": Integer(1, 200, log=True), "depth": Integer(1, 20)}, trials=14)


@pytest.fixture(scope="module")
def parts() -> Parts:
    rows = usable(pumps.readings(2000).set_index("id"), MODEL, "a test")
    return split(rows, rows.where(np.zeros(len(rows), dtype=bool)), MODEL)


@pytest.fixture
def run(parts: Parts, tmp_path: Path) -> Callable[..., SearchResult]:
    def found(model: Model, *chosen: str, **changes: Any) -> SearchResult:
        parameters = msgspec.structs.replace(SMALL, **changes)
        return search(model, parameters, frozenset(chosen), parts, tmp_path)

    return found


def searching(declared: Search, **changes: Any) -> Model:
    return msgspec.structs.replace(
        MODEL, search=msgspec.structs.replace(declared, cheaper={"trees": 5}), **changes
    )


def failing_for(leaf: int) -> Model:
    """Return a model whose estimator fails for one value; the space is tried as a whole."""
    (head,) = MODEL.heads
    declared = head.estimator
    assert declared is not None

    def forest(parameters: Any) -> BaseEstimator:
        if parameters.leaf >= leaf:
            raise ValueError("too few rows for such leaves")
        estimator: BaseEstimator = declared(parameters)
        return estimator

    heads = (msgspec.structs.replace(head, estimator=forest),)
    return searching(Search({"leaf": Integer(1, 3)}), heads=heads)


def compared(trials: list[Trial]) -> list[Trial]:
    """Return trials without the time."""
    return [msgspec.structs.replace(trial, started=0.0, seconds=0.0) for trial in trials]


def by_number(result: SearchResult) -> list[Trial]:
    return sorted(result.trials, key=lambda trial: trial.number)


def test_the_same_seed_finds_the_same_and_another_seed_tries_other_sets(
    run: Callable[..., SearchResult],
) -> None:
    first, again = run(searching(WIDE)), run(searching(WIDE))
    assert first.parameters == again.parameters
    assert compared(first.trials) == compared(again.trials)
    other = run(searching(WIDE), "seed", seed=1)
    tried = [[trial.parameters for trial in by_number(x)] for x in (first, other)]
    assert tried[0][0] == tried[1][0]
    assert tried[0] != tried[1]


def test_the_declared_defaults_are_the_first_trial_and_nothing_worse_is_chosen(
    run: Callable[..., SearchResult],
) -> None:
    found = run(searching(WIDE))
    default = by_number(found)[0]
    assert default.parameters == {"leaf": 2, "depth": 12}
    assert default.state == "complete"
    assert default.value is not None
    best = found.trials[0]
    assert best.value is not None
    assert best.value >= default.value
    assert msgspec.to_builtins(found.parameters) == {
        **msgspec.to_builtins(SMALL),
        **best.parameters,
    }


def test_declared_sets_follow_the_defaults_and_are_not_pruned(
    run: Callable[..., SearchResult],
) -> None:
    poor: dict[str, Any] = {"leaf": 200, "depth": 1}
    sets = tuple({**poor, "leaf": 200 - x} for x in range(8))
    found = by_number(run(searching(msgspec.structs.replace(WIDE, first=({"leaf": 9}, *sets)))))
    assert [x.parameters for x in found[1:10]] == [{"leaf": 9, "depth": 12}, *sets]
    assert {x.state for x in found[:10]} == {"complete"}


def test_pruned_trials_stop_early_and_are_recorded_as_pruned(
    run: Callable[..., SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = 0

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal fits
        fits += 1
        return fit_head(*arguments, **more)

    fit_head = objective.fit_head
    monkeypatch.setattr(objective, "fit_head", counted)
    found = run(searching(WIDE)).trials
    pruned = [trial for trial in found if trial.state == "pruned"]
    assert pruned
    assert all(trial.value is None and len(trial.values) < 3 for trial in pruned)
    assert all(len(trial.values) == 3 for trial in found if trial.state == "complete")
    assert fits <= sum(len(trial.values) for trial in found) < 3 * len(found)


def test_the_best_trials_come_first(run: Callable[..., SearchResult]) -> None:
    found = run(searching(WIDE)).trials
    complete = [trial.value for trial in found if trial.state == "complete"]
    assert complete == sorted(complete, key=lambda value: value or 0.0, reverse=True)
    assert [trial.state for trial in found] == sorted(trial.state for trial in found)
    assert all(trial.values[-1] == trial.value for trial in found if trial.state == "complete")
    assert all(trial.started > 0 and trial.seconds > 0 for trial in found)


def test_parameters_that_the_user_has_set_are_not_searched(
    run: Callable[..., SearchResult],
) -> None:
    found = run(searching(WIDE), "leaf", leaf=7)
    assert all(set(trial.parameters) == {"depth"} for trial in found.trials)
    assert msgspec.to_builtins(found.parameters)["leaf"] == 7
    changed = msgspec.structs.replace(SMALL, leaf=500)
    assert run(searching(WIDE), "leaf", "depth", leaf=500) == SearchResult(changed)
    off = msgspec.structs.replace(SMALL, search="off")
    assert run(searching(WIDE), search="off") == SearchResult(off)


def test_a_check_does_not_search_a_parameter_that_is_set(history: str, tmp_path: Path) -> None:
    parameters = msgspec.structs.replace(SMALL, leaf=50)
    made = check.check(MODEL, history, tmp_path / "version", parameters, frozenset({"leaf"}))
    assert made.parameters == parameters
    assert list(tmp_path.iterdir()) == [tmp_path / "version"]


def test_the_command_check_does_not_search_a_parameter_that_is_set_to_its_default(
    history: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", history)
    arguments = [MODEL.name, "--set", "trees=10", "--set", f"leaf={MODEL.parameters().leaf}"]
    assert check.main(arguments) == EXIT_SUCCESS
    assert "search: 0 trials" in caplog.text


def test_a_small_space_is_tried_as_a_whole_and_no_set_twice(
    run: Callable[..., SearchResult],
) -> None:
    space = {"leaf": Integer(1, 3), "depth": Choice(4, 12)}
    found = run(searching(Search(space))).trials
    tried = sorted((x.parameters["leaf"], x.parameters["depth"]) for x in found)
    assert tried == [(leaf, depth) for leaf in (1, 2, 3) for depth in (4, 12)]


def test_sets_that_come_again_are_not_fitted_again(
    run: Callable[..., SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Parameters] = []

    def counted(head: Any, model: Any, parameters: Parameters, *rest: Any, **more: Any) -> Any:
        fitted.append(parameters)
        return fit_head(head, model, parameters, *rest, **more)

    fit_head = objective.fit_head
    monkeypatch.setattr(objective, "fit_head", counted)
    found = run(searching(Search({"leaf": Integer(1, 16)}, trials=15))).trials
    tried = [trial.parameters["leaf"] for trial in found]
    assert len(set(tried)) < len(tried) == 15
    assert len(fitted) <= 3 * len(set(tried))


def test_a_metric_that_is_not_defined_leaves_the_defaults(
    run: Callable[..., SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    undefined = iter([-np.inf, np.nan] * 100)
    monkeypatch.setattr(type(MODEL.task), "search_value", lambda *_: next(undefined))
    found = run(searching(WIDE))
    assert found.parameters == SMALL
    assert {(trial.state, trial.value) for trial in found.trials} == {("complete", None)}


def test_a_failing_trial_is_recorded_and_does_not_end_the_search(
    run: Callable[..., SearchResult], caplog: pytest.LogCaptureFixture
) -> None:
    found = run(failing_for(3))
    assert [trial.state for trial in found.trials] == ["complete", "complete", "failed"]
    assert found.trials[-1].parameters == {"leaf": 3}
    assert "ValueError: too few rows for such leaves" in found.trials[-1].message
    (warning,) = [x for x in caplog.records if x.levelno == logging.WARNING]
    assert warning.name == "watchkeeper.training.trials"
    assert "trial 2 with {'leaf': 3} failed" in warning.getMessage()


def test_if_all_trials_fail_the_run_ends_with_the_reason(
    run: Callable[..., SearchResult],
) -> None:
    message = "^search: none of 3 trials is complete: .*ValueError: too few rows for such leaves"
    with pytest.raises(CannotTrainError, match=message):
        run(failing_for(1))


def test_the_command_says_in_one_sentence_that_all_trials_have_failed(
    history: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", history)
    monkeypatch.setattr(check, "find", lambda _: failing_for(1))
    assert check.main([MODEL.name]) == EXIT_FATAL
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_optuna_is_imported_by_a_search_only() -> None:
    code = "import sys, watchkeeper.training.run; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
