"""What people delete in a real registry: an answer, not an outage. What serves keeps serving."""

import uuid
from pathlib import Path

import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from plant import POLICY, Plant, build_version, register, run, state

from watchkeeper.core.events import (
    NumberReused,
    ProductionRegistered,
    ProductionUnregistered,
    Promoted,
    RolledBack,
    RolloutStarted,
    StepFinished,
)
from watchkeeper.core.version import BrokenVersionError, digest
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import history
from watchkeeper.platforms import RolloutCommands
from watchkeeper.registry import DIGEST_TAG, ROLLOUT_TAG, Registry
from watchkeeper.rollout.version_cache import Content

SECONDS_TO_REPORT = 10.0


@pytest.fixture
def plant(registry: Registry, ledger: Ledger, tmp_path: Path) -> Plant:
    """A plant whose version 1 is production."""
    plant = Plant(registry, ledger, f"pump-{uuid.uuid4().hex[:8]}", tmp_path)
    plant.register()
    run(plant, lambda: serves(plant, 1))
    return plant


def serves(plant: Plant, version: int) -> bool:
    found = state(plant)
    return (
        (found.phase, found.production) == ("steady", version)
        and set(plant.platform.pods) == {version}
        and "candidate" not in plant.registry.aliases(plant.model)
    )


def reasons(plant: Plant, kind: type) -> list[str]:
    return [e.reason for e in history(plant.ledger, plant.model, kind=kind)]


def test_a_version_is_promoted_although_the_one_before_was_deleted(plant: Plant) -> None:
    plant.registry.client.delete_model_version(plant.model, "1")
    run(plant, lambda: bool(reasons(plant, ProductionUnregistered)))
    assert plant.platform.written
    assert plant.platform.written.weights == {1: 100}
    assert (
        "v1 is no longer in the registry and keeps serving"
        in reasons(plant, ProductionUnregistered).pop()
    )
    plant.register()
    run(plant, lambda: serves(plant, 2))
    assert plant.registry.aliases(plant.model) == {"production": 2}, "no previous: it is deleted"
    assert len(reasons(plant, ProductionUnregistered)) == 1


def test_an_abort_ends_although_the_stable_version_was_deleted(plant: Plant) -> None:
    plant.register()
    run(plant, lambda: state(plant).canary_percent == 25)
    plant.registry.client.delete_model_version(plant.model, "1")
    plant.platform.standing_commands = RolloutCommands(abort=2)
    run(plant, lambda: serves(plant, 1))
    assert plant.registry.aliases(plant.model) == {}
    assert plant.platform.standing_commands == RolloutCommands()
    run(plant, lambda: bool(reasons(plant, ProductionUnregistered)))


def test_a_deleted_canary_is_taken_off(plant: Plant) -> None:
    plant.register()
    run(plant, lambda: state(plant).canary_percent == 25)
    plant.restart()  # a controller without the files of the version
    plant.registry.client.delete_model_version(plant.model, "2")
    run(plant, lambda: serves(plant, 1))
    assert reasons(plant, RolledBack) == ["withdrawn: it is no longer in the registry"]
    assert plant.registry.aliases(plant.model) == {"production": 1}


def test_a_deleted_alias_is_reported_until_it_is_set_again(plant: Plant) -> None:
    plant.registry.delete_alias(plant.model, "production")
    run(plant, lambda: bool(reasons(plant, ProductionUnregistered)))
    assert "no alias 'production' names v1" in reasons(plant, ProductionUnregistered).pop()
    plant.registry.set_alias(plant.model, "production", 1)
    run(plant, lambda: bool(reasons(plant, ProductionRegistered)))
    assert serves(plant, 1)


def test_what_serves_keeps_serving_after_the_model_was_deleted(plant: Plant) -> None:
    plant.registry.client.delete_registered_model(plant.model)
    plant.restart()
    run(plant, lambda: bool(reasons(plant, ProductionUnregistered)))
    for _ in range(20):
        plant.turn()
    assert serves(plant, 1)


def test_a_candidate_without_a_manifest_is_rejected_at_once(plant: Plant, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "model.pkl").write_bytes(b"from another tool")
    assert register(plant.registry, folder, plant.model) == 2
    started = plant.now
    run(plant, lambda: bool(reasons(plant, RolledBack)))
    assert plant.now - started < SECONDS_TO_REPORT
    assert reasons(plant, RolledBack) == [
        "version 2 is not a version of Watchkeeper: it has no manifest.json; only a training run "
        f"registers versions ('watchkeeper train {plant.model}')"
    ]
    run(plant, lambda: serves(plant, 1))
    assert 2 not in plant.platform.pods


def test_production_that_was_moved_to_a_foreign_version_is_moved_back(
    plant: Plant, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    build_version(folder, "another-model")
    register(plant.registry, folder, plant.model)
    plant.registry.delete_alias(plant.model, "candidate")
    plant.registry.set_alias(plant.model, "production", 2)
    run(plant, lambda: plant.registry.aliases(plant.model) == {"production": 1})
    assert "version of the model 'another-model'" in reasons(plant, RolledBack).pop()
    run(plant, lambda: serves(plant, 1))


def test_a_candidate_whose_files_are_gone_is_rejected(plant: Plant) -> None:
    plant.register()
    uri = plant.registry.client.get_model_version_download_uri(plant.model, "2")
    get_artifact_repository(uri, plant.registry.client.tracking_uri).delete_artifacts()
    plant.restart()
    run(plant, lambda: bool(reasons(plant, RolledBack)))
    assert "the registry has no files of version 2" in reasons(plant, RolledBack).pop()
    run(plant, lambda: serves(plant, 1))


def assert_judged(plant: Plant, version: int) -> None:
    """Check that a version passed all canary steps before it became production."""
    events = history(plant.ledger, plant.model, version=version)
    steps = [e.details.percent for e in events if isinstance(e.details, StepFinished)]
    assert steps == list(POLICY.steps)
    promoted = [e.details.digest for e in events if isinstance(e.details, Promoted)]
    tags = {v.version: v.tags for v in plant.registry.versions(plant.model)}
    assert promoted == [plant.platform.digests[version]] == [tags[version][DIGEST_TAG]]
    assert tags[version][ROLLOUT_TAG] == "promoted"


def test_a_model_that_was_deleted_and_trained_again_is_judged_like_any_other(plant: Plant) -> None:
    plant.registry.client.delete_registered_model(plant.model)
    assert plant.register() == 2, "the numbers go on"
    run(plant, lambda: serves(plant, 2))
    assert_judged(plant, 2)
    assert plant.registry.aliases(plant.model) == {"production": 2}
    assert not reasons(plant, NumberReused)


@pytest.mark.parametrize("alias", ["candidate", "production"])
@pytest.mark.parametrize("slow", [False, True])
def test_other_content_under_an_old_number_gets_a_new_number_and_is_judged(
    plant: Plant, alias: str, slow: bool
) -> None:
    first = plant.platform.digests[1]
    plant.registry.client.delete_registered_model(plant.model)
    folder, _ = plant.build()
    assert register(plant.registry, folder, plant.model) == 1
    if alias == "production":
        plant.registry.set_alias(plant.model, "production", 1)
        plant.registry.delete_alias(plant.model, "candidate")
    plant.slow = {2: 0.5} if slow else {}
    plant.restart()
    run(plant, lambda: bool(reasons(plant, NumberReused)))
    (reused,) = history(plant.ledger, plant.model, kind=NumberReused)
    assert reused.version == 2
    assert reused.details == NumberReused(reused=1, digest=first, other_digest=digest(folder))
    if slow:
        run(plant, lambda: bool(reasons(plant, RolledBack)))
        run(plant, lambda: serves(plant, 1))
        assert plant.platform.digests[1] == first
        assert plant.registry.aliases(plant.model) == {}
        run(plant, lambda: bool(reasons(plant, ProductionUnregistered)))
    else:
        run(plant, lambda: serves(plant, 2))
        assert_judged(plant, 2)
        assert plant.registry.aliases(plant.model) == {"production": 2}
    for _ in range(10):
        plant.turn()
    assert len(history(plant.ledger, plant.model, kind=RolloutStarted)) == 1
    assert [v.version for v in plant.registry.versions(plant.model)] == [1, 2]


def test_a_rollback_never_leads_to_other_content(plant: Plant) -> None:
    plant.register()
    run(plant, lambda: serves(plant, 2))
    plant.registry.client.delete_registered_model(plant.model)
    folder, _ = plant.build()
    register(plant.registry, folder, plant.model)
    plant.registry.delete_alias(plant.model, "candidate")
    plant.registry.set_alias(plant.model, "previous", 1)
    plant.restart()
    plant.platform.standing_commands = RolloutCommands(rollback=2)
    run(plant, lambda: plant.platform.standing_commands == RolloutCommands())
    run(plant, lambda: "previous" not in plant.registry.aliases(plant.model))
    assert serves(plant, 2)


def test_a_restarted_controller_reads_what_serves_although_the_version_was_deleted(
    plant: Plant,
) -> None:
    content = Content(1, plant.platform.digests[1])
    plant.registry.client.delete_registered_model(plant.model)
    plant.restart()
    plant.controller.versions.fetch(content)
    assert plant.controller.versions.manifest(content).model == plant.model


def test_files_with_another_digest_than_the_tag_are_refused(plant: Plant) -> None:
    content = Content(1, "0" * 64)
    plant.registry.set_tag(plant.model, 1, DIGEST_TAG, content.digest)
    with pytest.raises(BrokenVersionError, match="has other content"):
        plant.controller.versions.fetch(content)
