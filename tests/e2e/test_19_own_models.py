"""Two models that are not ours: made from tables, each with a training image of its own."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from declared_models import MODELS
from installation import ROLLOUT_POLICY, Installation
from kube import OWN_CLUSTER, Json, wait_until
from offline import wrong_answers
from own_models import Project
from sklearn.datasets import load_breast_cancer, load_diabetes

from watchkeeper.core.events import Promoted

TRAINED_SECONDS = 400.0
ROWS = 30


@pytest.fixture(scope="module")
def projects(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Project]]:
    """A classification and a regression, from tables with as few as 442 rows."""
    if not OWN_CLUSTER:
        pytest.skip("images are loaded into the cluster of `make cluster` only")
    folder: Path = tmp_path_factory.mktemp("own")
    tumours = load_breast_cancer(as_frame=True).frame.rename(columns=lambda x: x.replace(" ", "_"))
    diabetes = load_diabetes(as_frame=True).frame
    made = {
        "tumour": Project(folder, "tumour", tumours, "target"),
        "diabetes": Project(folder, "diabetes", diabetes, "target"),
    }
    for project in made.values():
        project.build()
        project.store(installation.plant.outside)
    install(installation, made)
    yield made
    installation.install()
    status = installation.watchkeeper
    wait_until("the models are removed", lambda: not status("status")["removed"], 180.0)


def install(installation: Installation, projects: dict[str, Project]) -> None:
    policies = {"policies": {"rollout": ROLLOUT_POLICY}}
    own = {name: {**project.values(), **policies} for name, project in projects.items()}
    installation.install(models={**installation.values()["models"], **own})


def deliver(installation: Installation, project: Project) -> Json:
    """Wait for the result of an image, as the workflow of a project does, while clients ask."""
    words = ("wait", project.model, "--code", project.image, "--timeout", "500", "--json")
    with ThreadPoolExecutor() as executor:
        waiting = executor.submit(installation.in_cli, "watchkeeper", *words, seconds=550.0)
        while not waiting.done():
            project.ask(installation, ROWS)
    found: Json = json.loads(waiting.result())
    return found


def test_each_model_is_trained_in_its_own_image_and_serves(
    installation: Installation, projects: dict[str, Project]
) -> None:
    for name, project in projects.items():
        wait_until(
            f"{name} serves",
            lambda name=name: installation.versions(name, Promoted) == [1],
            TRAINED_SECONDS,
        )
        (job,) = installation.jobs(name)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["image"] == project.image


def test_the_answers_are_those_of_the_library_that_has_fitted_the_model(
    installation: Installation, projects: dict[str, Project]
) -> None:
    for name, project in projects.items():
        answers = project.ask(installation, ROWS)
        assert {answer.version for answer in answers} == {1}
        assert len({str(answer.outputs) for answer in answers}) > 1
        assert not wrong_answers(answers, name, installation.training)


def test_a_new_image_of_a_model_trains_that_model_only(
    installation: Installation, projects: dict[str, Project]
) -> None:
    before = {name: len(installation.jobs(name)) for name in (*MODELS, *projects)}
    projects["diabetes"].release()
    install(installation, projects)
    wait_until("a run of the new image", lambda: len(installation.jobs("diabetes")) == 2, 120.0)
    new = max(installation.jobs("diabetes"), key=lambda job: job["metadata"]["creationTimestamp"])
    (container,) = new["spec"]["template"]["spec"]["containers"]
    assert container["image"] == projects["diabetes"].image
    done = deliver(installation, projects["diabetes"])
    assert done["state"] == "promoted", done
    assert (done["version"], installation.model("diabetes")["production"]) == (2, 2)
    after = {name: len(installation.jobs(name)) for name in (*MODELS, *projects)}
    assert after == {**before, "diabetes": 2}
