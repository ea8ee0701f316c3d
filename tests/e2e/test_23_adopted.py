"""Versions that a data scientist registers in MLflow are adopted, judged and rolled out.

One model adopts estimators of scikit-learn. The versions of the other one are code, which runs in
images of its own that trust it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.sklearn
import numpy as np
import pytest
from foreign_versions import customers
from installation import ROLLOUT_POLICY, Installation, image
from kube import CLUSTER, OWN_CLUSTER, Json, wait_until
from own_models import Project
from scientist import Scientist, scientist, write_code
from sklearn.ensemble import RandomForestClassifier

from watchkeeper.core.events import Promoted
from watchkeeper.images.engines import Buildah
from watchkeeper.images.targets import Cluster
from watchkeeper.registry import ADOPT_TAG

ESTIMATOR, CODE = "churn", "churn-rule"  # the models; the scientist has other names for hers
REGISTERED = {ESTIMATOR: "leavers", CODE: "leavers-by-rule"}
NAMES = ["age", "calls"]
CUSTOMERS = customers(2_000, 1)
ROWS = 30
PROMOTED_SECONDS = 400.0
LIBRARIES = """
COPY libraries /libraries
ENV PYTHONPATH={path} WATCHKEEPER_TRUSTED_CODE=yes
"""


def forest(trees: int) -> RandomForestClassifier:
    made = RandomForestClassifier(trees, min_samples_leaf=5, random_state=trees)
    return made.fit(CUSTOMERS[NAMES], CUSTOMERS["gone"])


class Adopting:
    """The two projects, and the scientist."""

    def __init__(self, anna: Scientist, folder: Path, installation: Installation) -> None:
        self.anna, self._folder, self._installation = anna, folder, installation
        self.first = self.register_forest(40)
        rule = write_code(folder)
        sys.path.insert(0, str(folder / "libraries"))  # MLflow runs the code when it logs it
        try:
            by_rule = anna.register(mlflow.pyfunc, REGISTERED[CODE], **rule)
        finally:
            sys.path.remove(str(folder / "libraries"))
        self.projects = {
            name: Project(folder, name, CUSTOMERS, "gone", adopted=uri)
            for name, uri in {ESTIMATOR: self.first, CODE: by_rule}.items()
        }
        self.serving_image = self._build_images()
        for project in self.projects.values():
            project.store(installation.plant.outside)

    def register_forest(self, trees: int) -> str:
        return self.anna.register(
            mlflow.sklearn,
            REGISTERED[ESTIMATOR],
            sk_model=forest(trees),
            skops_trusted_types=["sklearn.tree._tree.Tree"],
            pip_requirements=["scikit-learn"],
        )

    def _build_images(self) -> str:
        """Build the images as docs/how-to/your-own-model.md says; return that of the servers."""
        self.projects[ESTIMATOR].build()
        project = self.projects[CODE]
        (self._folder / "libraries").rename(project.folder / "libraries")
        with (project.folder / ".dockerignore").open("a") as file:
            file.write("!libraries\n")
        with (project.folder / "Dockerfile").open("a") as file:
            file.write(LIBRARIES.format(path="/model/src:/model/metadata:/libraries"))
        project.build()
        name = project.image.replace(CODE, f"{CODE}-serving")
        serving = f"FROM {image('serving')}\n{LIBRARIES.format(path='/libraries')}"
        (project.folder / "serving.Dockerfile").write_text(serving)
        Buildah().build(project.folder, "serving.Dockerfile", name, [])
        Cluster(CLUSTER).load(name)
        return name

    def values(self) -> Json:
        adopt = {ESTIMATOR: "tag", CODE: "each"}
        models = {
            name: {
                **project.values(),
                "policies": {"rollout": ROLLOUT_POLICY},
                "adopt": {"model": REGISTERED[name], "when": adopt[name]},
            }
            for name, project in self.projects.items()
        }
        models[CODE]["serving"] = {"image": self.serving_image}
        return models

    def answers(self, model: str) -> tuple[np.ndarray, set[int]]:
        """Return the scores of the first rows, and the versions that have given them."""
        found = self.projects[model].ask(self._installation, ROWS)
        (score,) = {name for name in found[0].outputs if name.endswith("probability")}
        return np.array([each.outputs[score] for each in found]), {each.version for each in found}


@pytest.fixture(scope="module")
def adopting(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Adopting]:
    if not OWN_CLUSTER:
        pytest.skip("images are loaded into the cluster of `make cluster` only")
    try:
        with scientist(installation) as anna:
            made = Adopting(anna, tmp_path_factory.mktemp("adopting"), installation)
            installation.install(models={**installation.values()["models"], **made.values()})
            yield made
    finally:
        installation.install()
        status = installation.watchkeeper
        wait_until("the models are removed", lambda: not status("status")["removed"], 180.0)


def serves(installation: Installation, model: str, versions: list[int]) -> None:
    wait_until(
        f"{model} has promoted {versions}",
        lambda: installation.versions(model, Promoted) == versions,
        PROMOTED_SECONDS,
    )


def test_a_version_that_is_code_serves_in_images_that_trust_it(
    installation: Installation, adopting: Adopting
) -> None:
    serves(installation, CODE, [1])
    scores, versions = adopting.answers(CODE)
    table = CUSTOMERS[:ROWS]
    assert versions == {1}
    assert scores == pytest.approx(
        1.0 / (1.0 + np.exp(1.0 - table["calls"] + table["age"] * 0.05)).to_numpy()
    )


def test_a_version_is_adopted_when_it_gets_the_tag(
    installation: Installation, adopting: Adopting
) -> None:
    assert not installation.jobs(ESTIMATOR), "no version has the tag yet"
    adopting.anna.tag(adopting.first, ADOPT_TAG, ESTIMATOR)
    serves(installation, ESTIMATOR, [1])
    scores, versions = adopting.answers(ESTIMATOR)
    assert versions == {1}
    assert scores == pytest.approx(expected(40), abs=1e-6)


def test_a_version_that_a_person_names_is_rolled_out(
    installation: Installation, adopting: Adopting
) -> None:
    uri = adopting.register_forest(120)
    installation.in_cli("watchkeeper", "adopt", uri, "--model", ESTIMATOR)

    def promoted() -> bool:
        adopting.answers(ESTIMATOR)  # traffic for the steps of the canary
        return installation.versions(ESTIMATOR, Promoted) == [1, 2]

    wait_until("version 2 is promoted", promoted, PROMOTED_SECONDS)
    scores, versions = adopting.answers(ESTIMATOR)
    assert versions == {2}
    assert scores == pytest.approx(expected(120), abs=1e-6)


def expected(trees: int) -> Any:
    return forest(trees).predict_proba(CUSTOMERS[NAMES][:ROWS])[:, 1]
