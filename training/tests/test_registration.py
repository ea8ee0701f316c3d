"""Registration with a real MLflow, killed with SIGKILL at every step."""

import multiprocessing
import signal
from collections.abc import Sequence
from pathlib import Path

import killed_registration
import pytest

from watchkeeper.core.answer import AnswerPolicy, Label, Risk, outputs_of
from watchkeeper.core.gate_report import GateReport, Trial, write_report
from watchkeeper.core.head import Head
from watchkeeper.core.names import CANDIDATE, PRODUCTION, model_uri
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.version import Lineage, Manifest, read_manifest, seal
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history as events
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG, RUN_TAG, Registry
from watchkeeper.training.register import finish, register
from watchkeeper.training.trial_runs import MESSAGE_TAG, STATE_TAG

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["killed_registration"])


TRIALS = [
    Trial({"leaf": 5}, 0.8, "r2", number=1, values=[0.7, None, 0.8], started=1e9, seconds=2.5),
    Trial({"leaf": 2}, 0.7, "r2", number=0, values=[0.6, 0.7, 0.7], started=1e9, seconds=2.0),
    Trial({"leaf": 9}, None, "r2", "pruned", 2, [0.1], 1e9, 1.0),
    Trial({"leaf": 7}, None, "r2", "failed", 3, [], 1e9, 0.5, message="ValueError: " + "x" * 9000),
]


def sealed(
    folder: Path, model: str, run: str, *, passed: bool = True, trials: Sequence[Trial] = ()
) -> Path:
    """Make a version's folder, without the training."""
    answer = AnswerPolicy((Label("failure", "score"),), Risk("score", 0.2, 0.6))
    heads = (Head("score", "score.skops", "predict_proba"),)
    signature = Signature((Column("load", "FP64", unit="Nm"),), outputs_of(heads, answer))
    lineage = Lineage(run, "0" * 64, 10, 0, "1", {}, "a test", 1.0)
    folder.mkdir()
    (folder / "score.skops").write_bytes(b"weights" * 10_000)
    (folder / "metrics_report.txt").write_text("metrics\n")
    write_report(folder, GateReport(passed, "a reason", 0.5, [], {}, {}, search=[*trials]))
    seal(folder, Manifest(model, signature, heads, answer, DriftPolicy(), RolloutPolicy(), lineage))
    return folder


@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("create_run", "before"),
        ("log_batch", "before"),
        ("log_artifacts", "before"),
        ("create_registered_model", "before"),
        ("create_model_version", "before"),
        ("create_model_version", "after"),
        ("set_registered_model_alias", "before"),
        ("set_terminated", "before"),
        ("set_terminated", "after"),
    ],
)
def test_a_killed_run_registers_one_complete_version_when_it_runs_again(
    registry: Registry, ledger: Ledger, tmp_path: Path, call: str, when: str
) -> None:
    model = f"{call.replace('_', '-')}-{when}"[-30:].strip("-")
    folder = sealed(tmp_path / "made", model, f"{model}-run")
    uri, database = registry.client.tracking_uri, str(ledger.engine.url)
    victim = FORK.Process(
        target=killed_registration.registered, args=(uri, database, folder, call, when), daemon=True
    )
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    for version in registry.versions(model):
        registry.download(model_uri(model, version.version), tmp_path / "half")
        read_manifest(tmp_path / "half")

    finish(registry, ledger, register(registry, ledger, folder, {"trees": 3}), folder)

    (only,) = registry.versions(model)
    assert only.tags[RUN_TAG] == f"{model}-run"
    assert only.tags[GATE_TAG] == "passed"
    assert registry.aliases(model) == {CANDIDATE: only.version}
    registry.download(model_uri(model, only.version), tmp_path / "got")
    assert read_manifest(tmp_path / "got") == read_manifest(folder)
    assert [event.id for event in events(ledger, model)] == [f"{model}/v{only.version}/gate"]
    experiment = registry.client.get_experiment_by_name(model)
    assert experiment is not None
    statuses = {run.info.status for run in registry.client.search_runs([experiment.experiment_id])}
    assert statuses <= {"FINISHED", "KILLED"}
    assert registry.client.get_run(only.run_id).info.status == "FINISHED"


def test_the_same_run_twice_at_the_same_time_makes_one_version(
    registry: Registry, ledger: Ledger, tmp_path: Path
) -> None:
    folder = sealed(tmp_path / "made", "twins", "twins-run")
    uri, database = registry.client.tracking_uri, str(ledger.engine.url)
    twins = [
        FORK.Process(target=killed_registration.registered, args=(uri, database, folder))
        for _ in range(2)
    ]
    for twin in twins:
        twin.start()
    for twin in twins:
        twin.join(60)
    assert [twin.exitcode for twin in twins] == [0, 0]
    (only,) = registry.versions("twins")
    assert registry.aliases("twins") == {CANDIDATE: only.version}
    assert len(events(ledger, "twins")) == 1


def test_a_rejected_version_is_registered_but_is_not_the_candidate(
    registry: Registry, ledger: Ledger, tmp_path: Path
) -> None:
    folder = sealed(tmp_path / "made", "rejected", "run", passed=False)
    finish(registry, ledger, register(registry, ledger, folder, {}), folder)
    assert registry.versions("rejected")[0].tags[GATE_TAG] == "rejected"
    assert registry.aliases("rejected") == {}
    assert events(ledger, "rejected")[0].kind == "gate-rejected"


@pytest.mark.parametrize("decided", ["serves", "rolled back", "overtaken"])
def test_a_repeated_run_does_not_undo_a_decision_of_the_rollout(
    registry: Registry, ledger: Ledger, tmp_path: Path, decided: str
) -> None:
    model = decided.replace(" ", "-")
    folder = sealed(tmp_path / "made", model, "run")
    version = register(registry, ledger, folder, {})
    finish(registry, ledger, version, folder)
    registry.delete_alias(model, CANDIDATE)
    if decided == "serves":
        registry.set_alias(model, PRODUCTION, version.version)
    elif decided == "rolled back":
        registry.set_tag(model, version.version, ROLLOUT_TAG, "rolled-back: slow")
    else:
        newer = sealed(tmp_path / "newer", model, "newer-run")
        finish(registry, ledger, register(registry, ledger, newer, {}), newer)
    before = registry.aliases(model)
    finish(registry, ledger, register(registry, ledger, folder, {}), folder)
    assert registry.aliases(model) == before


def test_each_trial_of_the_search_is_a_child_run_of_the_run_of_the_version(
    registry: Registry, ledger: Ledger, tmp_path: Path
) -> None:
    folder = sealed(tmp_path / "made", "searched", "searched-run", trials=TRIALS)
    version = register(registry, ledger, folder, {})
    client, parent = registry.client, registry.client.get_run(version.run_id)
    experiment = parent.info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{version.run_id}'")
    runs = {run.info.run_name: run for run in found}
    assert sorted(runs) == ["trial 0", "trial 1", "trial 2", "trial 3"]
    states = [(runs[x].info.status, runs[x].data.tags[STATE_TAG]) for x in sorted(runs)]
    assert states == [
        ("FINISHED", "complete"),
        ("FINISHED", "complete"),
        ("KILLED", "pruned"),
        ("FAILED", "failed"),
    ]
    best = runs["trial 1"]
    assert best.data.params == {"leaf": "5"}
    assert best.data.metrics == {"r2": 0.8, "seconds": 2.5}
    assert best.info.end_time - best.info.start_time == 2500
    steps = [(x.step, x.value) for x in client.get_metric_history(best.info.run_id, "r2")]
    assert steps == [(1, 0.7), (3, 0.8)]
    assert runs["trial 3"].data.tags[MESSAGE_TAG].startswith("ValueError: xxx")


@pytest.mark.parametrize("call", ["set_terminated", "create_model_version"])
def test_a_run_that_is_killed_after_it_has_logged_trials_leaves_only_those_of_its_version(
    registry: Registry, ledger: Ledger, tmp_path: Path, call: str
) -> None:
    model = f"trials-{call.replace('_', '-')}"
    folder = sealed(tmp_path / "made", model, "run", trials=TRIALS)
    uri, database = registry.client.tracking_uri, str(ledger.engine.url)
    victim = FORK.Process(target=killed_registration.registered, args=(uri, database, folder, call))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    version = register(registry, ledger, folder, {})
    finish(registry, ledger, version, folder)
    experiment = registry.client.get_experiment_by_name(model)
    assert experiment is not None
    runs = registry.client.search_runs([experiment.experiment_id])
    trials = [run for run in runs if STATE_TAG in run.data.tags]
    assert len(trials) == len(TRIALS)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {version.run_id}
    assert len(runs) == len(trials) + 2
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED", "KILLED"}
