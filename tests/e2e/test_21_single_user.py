"""A release of the chart that had one user for both databases is upgraded while it serves.

The earlier chart comes from the history of this repository. The images are today's, and so are the
rights that they need.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from declared_models import FIRST as MODEL
from installation import CHART, FOLDER, Installation, installed
from kube import ROOT, wait_until
from load import Load
from rollouts import check_promotion, has_succeeded, newest_candidate
from sessions import sessions
from single_requests import check_recorded

EARLIER = "e8d43f9c761c8e7ab43748a56bac4bdf740bb65b^"  # its chart was the last with one user
OWNER = "watchkeeper"
NEW_USERS = {"ledger-reader", "mlflow"}


@pytest.fixture(scope="module")
def earlier_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    git = ("git", "-C", str(ROOT))
    found = subprocess.run([*git, "cat-file", "-e", EARLIER], check=False, capture_output=True)
    if found.returncode:
        pytest.skip(f"this clone has no commit {EARLIER}; fetch the whole history")
    folder = tmp_path_factory.mktemp("earlier")
    archive = folder / "chart.tar"
    words = ("archive", "-o", str(archive), EARLIER, str(CHART.relative_to(ROOT)))
    subprocess.run([*git, *words], check=True)
    subprocess.run(["tar", "-x", "-f", str(archive), "-C", str(folder)], check=True)
    chart = folder / CHART.relative_to(ROOT)
    shutil.copyfile(CHART / "files/roles.yaml", chart / "files/roles.yaml")
    return chart


@pytest.fixture(scope="module")
def installation(earlier_chart: Path) -> Iterator[Installation]:
    own = Installation(FOLDER / "single-user", models=(MODEL,))
    own.chart = earlier_chart
    with installed(own) as made:
        yield made


@pytest.fixture(scope="module")
def load(installation: Installation) -> Iterator[Load]:
    """A steady load over the upgrade."""
    with Load(installation, MODEL, "single-user", rate=40.0) as made:
        yield made


def test_the_earlier_chart_serves_with_one_user(installation: Installation, load: Load) -> None:
    assert installation.first_versions[MODEL].promoted == [1]
    assert sessions(installation).keys() == {OWNER}
    check_recorded(installation)
    load.check()


def test_the_upgrade_gives_the_components_their_users_and_no_request_fails(
    installation: Installation, load: Load
) -> None:
    installation.chart = CHART
    installation.install()
    wait_until(
        "rollout and MLflow use their own users",
        lambda: sessions(installation).keys() >= NEW_USERS,
    )
    assert installation.model(MODEL)["production"] == 1
    check_recorded(installation)  # by the sidecar of version 1, which knows the owner only
    load.check()


def test_the_next_version_writes_with_the_user_of_its_model(
    installation: Installation, load: Load
) -> None:
    run = installation.watchkeeper("train", MODEL)["run"]
    wait_until("the run has ended", lambda: has_succeeded(installation, run), 300.0)
    check_promotion(installation, MODEL, newest_candidate(installation, MODEL))
    load.check()
    load.stop()
    check_recorded(installation)
    wait_until("nobody is the owner", lambda: OWNER not in sessions(installation))
    assert sessions(installation).keys() == {*NEW_USERS, f"ledger-writer-{MODEL}"}
