"""What a training run reads about the version that serves, with a real MLflow."""

import time
from pathlib import Path

import msgspec
import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from watchkeeper.core.events import Event, GatePassed, Promoted
from watchkeeper.core.names import CANDIDATE, PRODUCTION
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.events import emit
from watchkeeper.ledger.events import history as events
from watchkeeper.registry import DIGEST_TAG, Registry
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.read import TrainingInput, read
from watchkeeper.training.run import TrainingRequest, train


class Line(msgspec.Struct):
    """A model whose first version is in production."""

    request: TrainingRequest
    registry: Registry
    ledger: Ledger
    history: str

    def read(self, folder: Path) -> TrainingInput:
        return read(
            self.request.model,
            self.history,
            self.registry,
            self.ledger,
            episode=None,
            folder=folder,
        )


@pytest.fixture
def line(registry: Registry, history: str, tmp_path: Path, request: pytest.FixtureRequest) -> Line:
    name = request.node.name.replace("_", "-")[-30:].strip("-")
    model = msgspec.structs.replace(find("pump-failure"), name=name)
    parameters, chosen = parameters_of(model, ["trees=5", "search=off"])
    first = TrainingRequest(model, "first", "a test", parameters, frozenset(chosen))
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    version = train(first, history, registry, ledger)
    assert version.version == 1
    registry.set_alias(name, PRODUCTION, 1)
    promoted = Promoted(digest=version.tags[DIGEST_TAG])
    emit(ledger, Event(f"{name}/v1/promoted", name, 1, time.time(), "a test", promoted))
    return Line(first, registry, ledger, history)


def test_production_is_read_although_the_version_was_deleted(line: Line, tmp_path: Path) -> None:
    line.registry.client.delete_model_version(line.request.model.name, "1")
    production = line.read(tmp_path / "files").production
    assert production is not None
    assert production.version == 1
    assert production.model.manifest.lineage.run == "first"


def test_what_serves_is_read_although_its_number_names_another_version(
    line: Line, tmp_path: Path
) -> None:
    name, client = line.request.model.name, line.registry.client
    client.delete_registered_model(name)
    client.create_registered_model(name)
    run = client.create_run("0").info
    client.log_text(run.run_id, "{}", "model/manifest.json")
    source = f"{run.artifact_uri}/model"
    client.create_model_version(name, source, run.run_id, await_creation_for=0)
    line.registry.set_alias(name, PRODUCTION, 1)
    production = line.read(tmp_path / "files").production
    assert production is not None
    assert production.model.manifest.lineage.run == "first"


def test_a_model_that_was_deleted_goes_on_counting(line: Line, history: str) -> None:
    line.registry.client.delete_registered_model(line.request.model.name)
    again = msgspec.structs.replace(line.request, run="again")
    version = train(again, history, line.registry, line.ledger)
    assert version.version == 2
    assert line.registry.aliases(line.request.model.name) == {CANDIDATE: 2}
    (gate,) = events(line.ledger, line.request.model.name, version=2)
    assert isinstance(gate.details, GatePassed)
    assert gate.details.digest == version.tags[DIGEST_TAG]
    assert gate.details.report is not None
    assert gate.details.report.production_metrics, "it is compared with what serves"


def test_a_run_goes_on_although_the_files_of_production_are_gone(
    line: Line, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name, client = line.request.model.name, line.registry.client
    source = client.get_model_version_download_uri(name, "1")
    client.delete_model_version(name, "1")
    get_artifact_repository(source, client.tracking_uri).delete_artifacts()
    assert line.read(tmp_path / "files").production is None
    assert "the new version is not compared with it" in caplog.text
