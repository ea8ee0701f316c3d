"""Numbers of versions in a real MLflow: none is used twice, whatever is deleted or killed."""

import multiprocessing
import signal
import uuid
from pathlib import Path

import killed_creation
import pytest

from watchkeeper.core.version import MANIFEST, digest
from watchkeeper.registry import AGAIN_TAG, DIGEST_TAG, FILES, GATE_TAG, Registry, RegistryError
from watchkeeper.registry.client import RegisteredVersion

SECONDS = 300.0  # a busy machine needs minutes
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["killed_creation"])


class Model:
    """A registered model, and the contents that are logged as its runs."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry, self.folder = registry, folder
        self.client = registry.client
        self.name = f"m-{uuid.uuid4().hex[:8]}"
        self.experiment = str(self.client.create_experiment(self.name))

    def log(self, text: str, *, tagged: bool = True) -> tuple[str, str, str]:
        """Log the run of a content; return source, id of the run and digest."""
        content = self.folder / uuid.uuid4().hex
        content.mkdir()
        (content / MANIFEST).write_text(text)
        run = self.client.create_run(self.experiment)
        self.client.log_artifacts(run.info.run_id, str(content), FILES)
        if tagged:
            self.client.set_tag(run.info.run_id, DIGEST_TAG, digest(content))
        return f"{run.info.artifact_uri}/{FILES}", run.info.run_id, digest(content)

    def create(self, value: str, above: int = 0, **tags: str) -> RegisteredVersion:
        source, run, content = self.log(value)
        tags = {"test.once": value, DIGEST_TAG: content, **tags}
        return self.registry.create_version(
            self.name, source, run, tags=tags, once="test.once", above=above
        )

    def numbers(self) -> list[int]:
        return [version.version for version in self.registry.versions(self.name)]


@pytest.fixture
def model(registry: Registry, tmp_path: Path) -> Model:
    return Model(registry, tmp_path)


def test_a_number_is_not_used_again_after_the_model_was_deleted(model: Model) -> None:
    assert [model.create(value).version for value in "ab"] == [1, 2]
    model.client.delete_registered_model(model.name)
    assert model.create("c", above=2).version == 3
    assert model.create("d", above=2).version == 4
    assert model.numbers() == [3, 4]


def test_no_number_is_left_out_after_the_newest_version_was_deleted(model: Model) -> None:
    assert model.create("a").version == 1
    assert model.create("b").version == 2
    model.client.delete_model_version(model.name, "2")
    assert model.create("c", above=2).version == 3


def test_the_same_creation_twice_makes_one_version(model: Model) -> None:
    first = model.create("a", above=3)
    assert model.create("a", above=7) == first
    assert model.numbers() == [4]


@pytest.mark.parametrize(
    ("call", "count"),
    [
        ("create_registered_model", 1),
        ("create_model_version", 1),
        ("create_model_version", 2),
        ("create_model_version", 3),
        ("delete_model_version", 1),
        ("delete_model_version", 2),
        ("search_model_versions", 1),
        ("search_model_versions", 2),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_creation_leaves_nothing_that_counts(
    model: Model, call: str, count: int, when: str
) -> None:
    source, run, _ = model.log("a")
    arguments = (model.client.tracking_uri, model.name, (source, run), "a", 2)
    victim = FORK.Process(
        target=killed_creation.create_killed, args=(call, when, count, *arguments), daemon=True
    )
    victim.start()
    victim.join(SECONDS)
    assert victim.exitcode == -signal.SIGKILL
    assert model.numbers() in ([], [3])
    version = killed_creation.create(*arguments)
    assert version in (3, 4)
    assert model.numbers() == [version]
    raw = model.client.search_model_versions(f"name='{model.name}'")
    assert [int(found.version) for found in raw] == [version], "the next call deletes what is left"


@pytest.mark.parametrize("values", ["aa", "ab"])
def test_two_creations_at_the_same_time_use_no_number_twice(model: Model, values: str) -> None:
    uri = model.client.tracking_uri
    with FORK.Pool(2) as pool:
        made = pool.starmap(
            killed_creation.create,
            [(uri, model.name, model.log(value)[:2], value, 5) for value in values],
        )
    assert all(number > 5 for number in made)
    assert model.numbers() == sorted(set(made))
    assert len(set(made)) == len(set(values))


def test_content_under_a_used_number_gets_a_new_number_once(model: Model) -> None:
    model.create("a")
    model.client.delete_registered_model(model.name)
    source, run, content = model.log("b")
    model.client.create_registered_model(model.name)
    model.client.create_model_version(model.name, source, run, tags={GATE_TAG: "passed"})
    assert model.registry.read_digest(model.name, 1) == content
    for _ in range(2):
        model.registry.register_again(model.name, 1, content, above=1)
    assert model.numbers() == [1, 2]
    tags = model.registry.versions(model.name)[1].tags
    assert (tags[AGAIN_TAG], tags[DIGEST_TAG], tags[GATE_TAG]) == (content, content, "passed")


@pytest.mark.parametrize("gone", ["nothing", "version", "model", "number names other content"])
def test_a_digest_fetches_its_own_content(model: Model, tmp_path: Path, gone: str) -> None:
    content = model.create("a").tags[DIGEST_TAG]
    if gone == "version":
        model.client.delete_model_version(model.name, "1")
    elif gone != "nothing":
        model.client.delete_registered_model(model.name)
    if gone == "number names other content":
        model.create("b")
    model.registry.download(f"mlflow://{model.name}/1/{content}", tmp_path / "got")
    assert digest(tmp_path / "got") == content


def test_a_digest_fetches_nothing_else(model: Model, tmp_path: Path) -> None:
    source, run, _ = model.log("b", tagged=False)
    model.client.create_registered_model(model.name)
    model.client.create_model_version(model.name, source, run)
    with pytest.raises(RegistryError, match="has other content") as error:
        model.registry.download(f"mlflow://{model.name}/1/{'0' * 64}", tmp_path / "got")
    assert error.value.not_found
    assert not (tmp_path / "got").exists()
