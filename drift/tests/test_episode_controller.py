"""The episode controller: attempts, outcomes of runs, and kills at any line."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fake_platform import FakePlatform
from kills import killed_at
from pump import MODEL, drift_report, labels_for, predictions, rows

from watchkeeper.core.drift_report import DriftVerdict
from watchkeeper.core.estimates import Estimate
from watchkeeper.core.events import (
    ConceptDrifted,
    EpisodeChanged,
    Event,
    EventDetails,
    GatePassed,
    GateRejected,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
    TrainingData,
    kind_of,
)
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.truths import truths_of
from watchkeeper.drift.concept.status import ConceptStatus
from watchkeeper.drift.episode_controller import EpisodeController
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.episodes import (
    Attempt,
    Episode,
    attempts,
    episodes,
    save_attempt,
    save_episode,
)
from watchkeeper.ledger.events import emit, history
from watchkeeper.ledger.records import store_records
from watchkeeper.ledger.reports import save_report
from watchkeeper.ledger.spools import SpoolState

POLICY = DriftPolicy(
    confirm=2,
    clean_windows=2,
    minimum_labels=10,
    minimum_positives=0,
    cool_down=100.0,
    maximum_attempts=2,
    training_distance=0.0,
    training_distance_rows=0,
)
STARTED = RolloutStarted(stable=1)
STEP = StepFinished(percent=10, since=1.0, until=2.0, verdict="fail", observations={}, policy={})
ROLLED_BACK = RolledBack(to=1, percent=10)
DATA = TrainingData(data_hash="0", rows=1000, labelled_rows=0, reference="history")


def requests(ledger: Ledger, first: int, count: int, *, labelled: bool, version: int = 1) -> None:
    data = predictions(rows(count, first), first=first, version=version)
    spool = SpoolState(f"s{version}", MODEL, version, 0.0)
    store_records(ledger, data, labels_for(data) if labelled else [], spool)


def window(ledger: Ledger, end: float, verdict: DriftVerdict, confirmations: int = 1) -> None:
    save_report(ledger, MODEL, 1, drift_report(end, verdict, confirmations=confirmations))


def confirm_drift(ledger: Ledger) -> None:
    """Store two drifted windows after a clean one, and twenty labelled requests since then."""
    window(ledger, 1000.0, "clean")
    window(ledger, 1005.0, "drifted")
    window(ledger, 1010.0, "drifted", confirmations=2)
    requests(ledger, 1, 20, labelled=True)


HEAD = Head("score", "score.skops", "predict_proba", label="failure")


def controller(
    ledger: Ledger, platform: FakePlatform, version: int = 1, policy: DriftPolicy = POLICY
) -> EpisodeController:
    return EpisodeController(
        ledger,
        platform,  # type: ignore[arg-type]
        MODEL,
        version,
        policy=policy,
        truths=truths_of([HEAD], HEAD),
    )


def reconcile(ledger: Ledger, platform: FakePlatform, version: int = 1) -> None:
    for _ in range(4):
        controller(ledger, platform, version).reconcile()


def passed(run: str) -> GatePassed:
    return GatePassed(run=run, trigger="drift", code_version="1", mlflow_run="run", data=DATA)


def rejected(run: str) -> GateRejected:
    return GateRejected(run=run, trigger="drift", code_version="1", mlflow_run="run", data=DATA)


def emit_event(ledger: Ledger, details: EventDetails, version: int, time: float) -> None:
    kind = kind_of(details)
    emit(ledger, Event(f"{version}/{kind}/{time}", MODEL, version, time, kind, details))


def states(ledger: Ledger) -> list[str]:
    events = history(ledger, MODEL, kind=EpisodeChanged)
    return [f"{e.details.state} {e.details.attempt}" for e in events]


def test_confirmed_drift_with_enough_labels_creates_one_run(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    (run,) = platform.created
    assert (run.name, run.episode, run.replaces) == (f"{MODEL}-v1-a1", f"{MODEL}-v1-e1", 1)
    assert run.trigger == "drift of vibration"
    assert states(ledger) == ["waiting-for-labels 0", "training 1"]
    events = history(ledger, MODEL, kind=EpisodeChanged)
    assert events[0].id == f"{MODEL}-v1-e1/waiting-for-labels/0"
    assert all(e.details.policy == msgspec.to_builtins(POLICY) for e in events)


def test_a_rejected_attempt_is_followed_by_another_up_to_the_limit(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, rejected(f"{MODEL}-v1-a1"), 2, 1100.0)
    reconcile(ledger, platform)
    assert len(platform.created) == 1, "the cool-down is not over"
    requests(ledger, 200, 1, labelled=False)
    reconcile(ledger, platform)
    assert [run.name for run in platform.created] == [f"{MODEL}-v1-a1", f"{MODEL}-v1-a2"]
    platform.states[f"{MODEL}-v1-a2"] = "failed"
    reconcile(ledger, platform)
    requests(ledger, 900, 1, labelled=False)
    reconcile(ledger, platform)
    assert len(platform.created) == 2
    assert states(ledger)[1:] == ["training 1", "cool-down 1", "training 2", "given-up 2"]
    window(ledger, 2000.0, "clean")
    window(ledger, 2005.0, "clean")
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "clean 2"


def test_a_promotion_closes_the_episode_and_a_rollback_does_not(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a1"), 2, 1100.0)
    emit_event(ledger, ROLLED_BACK, 2, 1101.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"
    requests(ledger, 200, 1, labelled=False)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a2"), 3, 1200.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "training 2"
    emit_event(ledger, Promoted(), 3, 1201.0)
    requests(ledger, 300, 1, labelled=False, version=3)
    reconcile(ledger, platform, version=3)
    assert states(ledger)[-1] == "promoted 2"
    assert len(platform.created) == 2


def test_a_promotion_that_is_rolled_back_counts_as_an_attempt(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a1"), 2, 1100.0)
    emit_event(ledger, Promoted(), 2, 1101.0)
    requests(ledger, 101, 1, labelled=False, version=2)
    reconcile(ledger, platform, version=2)
    assert states(ledger)[-1] == "promoted 1"
    emit_event(ledger, ROLLED_BACK, 2, 1102.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"
    requests(ledger, 300, 1, labelled=False)
    reconcile(ledger, platform)
    assert [run.name for run in platform.created] == [f"{MODEL}-v1-a1", f"{MODEL}-v1-a2"]
    assert len(episodes(ledger, MODEL)) == 1


def test_a_run_that_died_before_it_set_the_alias_has_failed(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a1"), 2, 1100.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "training 1"
    platform.states[f"{MODEL}-v1-a1"] = "failed"
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"


def test_a_version_whose_rollout_was_cancelled_before_it_started_counts_as_an_attempt(
    ledger: Ledger,
) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a1"), 2, 1100.0)
    emit_event(ledger, passed("by-hand"), 3, 1101.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "training 1"
    # The rollout does this when 3 becomes candidate.
    emit_event(ledger, ROLLED_BACK, 2, 1102.0)
    emit_event(ledger, STARTED, 3, 1103.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"
    emit_event(ledger, Promoted(), 3, 1104.0)
    requests(ledger, 300, 1, labelled=False, version=3)
    reconcile(ledger, platform, version=3)
    assert states(ledger)[-1] == "promoted 1"
    assert len(platform.created) == 1


def test_a_rollback_counts_if_the_last_step_has_the_same_time(
    ledger: Ledger,
) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a1"), 2, 1100.0)
    emit_event(ledger, STARTED, 2, 1101.0)
    emit_event(ledger, STEP, 2, 1102.0)
    emit_event(ledger, ROLLED_BACK, 2, 1102.0)
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "cool-down 1"


@pytest.mark.parametrize("details", [STARTED, STEP])
def test_an_attempt_waits_for_a_rollout_that_has_started(
    ledger: Ledger, details: RolloutStarted | StepFinished
) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, passed(f"{MODEL}-v1-a1"), 2, 1100.0)
    emit_event(ledger, details, 2, 1101.0)
    platform.states[f"{MODEL}-v1-a1"] = "failed"
    reconcile(ledger, platform)
    assert states(ledger)[-1] == "training 1"


def test_a_finished_run_is_not_created_again_after_its_job_was_deleted(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    emit_event(ledger, rejected(f"{MODEL}-v1-a1"), 2, 1100.0)
    platform.states.clear()
    reconcile(ledger, platform)
    assert len(platform.created) == 1


def test_an_unfinished_run_is_created_again_after_its_job_was_deleted(ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    reconcile(ledger, platform)
    platform.states.clear()
    reconcile(ledger, platform)
    assert [run.name for run in platform.created] == [f"{MODEL}-v1-a1"] * 2
    assert states(ledger)[-1] == "training 1"


def test_the_name_of_a_manual_run_is_not_used_again(ledger: Ledger) -> None:
    platform = FakePlatform()
    platform.states[f"{MODEL}-v1-a4"] = "succeeded"
    save_attempt(ledger, Attempt(f"{MODEL}-v1-a5", None, MODEL, "manual", 1.0))
    confirm_drift(ledger)
    reconcile(ledger, platform)
    assert [run.name for run in platform.created] == [f"{MODEL}-v1-a6"]


@pytest.mark.parametrize("episode", [None, "e0"])
def test_a_drift_waits_for_hours_and_rows_after_the_last_run_for_a_drift(
    ledger: Ledger, episode: str | None
) -> None:
    policy = msgspec.structs.replace(POLICY, training_distance=50.0, training_distance_rows=60)
    platform = FakePlatform()
    save_attempt(ledger, Attempt(f"{MODEL}-v0-a1", episode, MODEL, "a test", 1000.0))

    def created() -> int:
        for _ in range(4):
            controller(ledger, platform, policy=policy).reconcile()
        return len(platform.created)

    confirm_drift(ledger)  # requests at 1001 to 1020
    if episode is None:
        assert created() == 1, "a run of a person does not count"
        return
    assert created() == 0
    assert states(ledger) == ["waiting-for-labels 0"], "it waits and does not give up"
    requests(ledger, 55, 1, labelled=False)
    assert created() == 0, "55 seconds later, but only 21 rows"
    requests(ledger, 60, 40, labelled=False)
    assert created() == 1


def test_the_row_of_promotions_is_read_from_the_ledger(ledger: Ledger) -> None:
    platform = FakePlatform()
    for n in range(3):
        before = Episode(
            f"e{n}", MODEL, 10 + n, "promoted", n * 100.0, n * 100.0, n * 100.0 + 50, 1, ""
        )
        save_episode(ledger, before)
    confirm_drift(ledger)
    reconcile(ledger, platform)
    assert platform.created == []
    (episode,) = [e for e in episodes(ledger, MODEL) if e.version == 1]
    assert episode.state == "given-up"
    assert "3 promotions in a row" in episode.reason


def test_a_concept_drift_waits_only_for_labels_of_its_own_heads(ledger: Ledger) -> None:
    other = msgspec.structs.replace(HEAD, score="life", task="regression", label="life")
    platform = FakePlatform()
    window(ledger, 1000.0, "clean")
    requests(ledger, 1, 20, labelled=True)
    drifted = ConceptStatus(
        "failure",
        "Brier score",
        "drifted",
        "the mean loss is 0.2",
        loss=Estimate(0.2, 0.1, 0.3),
        since=1001.0,
        found=1015.0,
    )

    def states_with(*concepts: ConceptStatus) -> list[str]:
        for _ in range(4):
            EpisodeController(
                ledger,
                platform,  # type: ignore[arg-type]
                MODEL,
                1,
                policy=POLICY,
                truths=truths_of([HEAD, other], HEAD),
            ).reconcile(concepts)
        return states(ledger)

    assert states_with() == []
    life = msgspec.structs.replace(drifted, label="life", reason="the mean loss is 0.4")
    assert states_with(life) == ["waiting-for-labels 0"], "nobody has sent labels of life"
    assert states_with(drifted) == ["waiting-for-labels 0", "training 1"]
    events = history(ledger, MODEL, kind=ConceptDrifted)
    assert [event.id.rpartition("/")[2] for event in events] == ["failure", "life"]
    assert [run.trigger for run in platform.created] == ["concept drift of failure"]


TRACED = ("drift/episode_controller.py", "ledger/episodes.py", "ledger/events.py")


def kill_points(tmp_path: Path) -> Iterator[tuple[Ledger, FakePlatform, int]]:
    """Yield the same confirmed drift again and again, each time for the next line."""
    for line in range(1, 10_000):
        url = f"sqlite:///{tmp_path}/{line}.db"
        if line == 1:
            migrate(f"sqlite:///{tmp_path}/template.db")
            template = Ledger(f"sqlite:///{tmp_path}/template.db")
            confirm_drift(template)
            controller(
                template, FakePlatform()
            ).reconcile()  # the episode is open and has enough labels
            template.close()
        shutil.copy(tmp_path / "template.db", tmp_path / f"{line}.db")
        ledger = Ledger(url)
        # Another process has the database open. Otherwise every transaction ends with a checkpoint.
        other = sqlite3.connect(tmp_path / f"{line}.db")
        other.execute("SELECT * FROM episodes").fetchall()
        yield ledger, FakePlatform(), line
        other.close()
        ledger.close()
        (tmp_path / f"{line}.db").unlink()


def test_a_controller_killed_at_any_line_creates_exactly_one_run(tmp_path: Path) -> None:
    kills = 0
    for ledger, platform, line in kill_points(tmp_path):
        killed = controller(ledger, platform)
        if not killed_at(line, killed.reconcile, TRACED):
            break
        kills += 1
        for _ in range(2):
            controller(ledger, platform).reconcile()
        assert [run.name for run in platform.created] == [f"{MODEL}-v1-a1"], line
        assert [a.run for a in attempts(ledger, MODEL)] == [f"{MODEL}-v1-a1"], line
        (episode,) = episodes(ledger, MODEL)
        assert (episode.state, episode.attempt) == ("training", 1), line
        assert states(ledger) == ["waiting-for-labels 0", "training 1"], line
    assert kills > 100


def test_no_run_is_created_without_the_ledger(tmp_path: Path, ledger: Ledger) -> None:
    platform = FakePlatform()
    confirm_drift(ledger)
    controller(ledger, platform).reconcile()
    running = controller(ledger, platform)
    ledger.close()
    (tmp_path / "ledger.db").rename(tmp_path / "away.db")
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(Exception, match="unable to open database file"):
        running.reconcile()
    assert platform.created == []
    (tmp_path / "ledger.db").rmdir()
    (tmp_path / "away.db").rename(tmp_path / "ledger.db")
    reconcile(ledger, platform)
    assert len(platform.created) == 1
