"""Prometheus runs the alert rules on the time series of rules_test.yaml."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of promtool, from the PATH or from Debian's package without installing it.

    The installed package would start a server.
    """
    if found := shutil.which("promtool"):
        return found
    if shutil.which("apt-get") is None:
        pytest.skip("promtool is not on the PATH, and there is no apt-get to download it with")
    folder = tmp_path_factory.mktemp("prometheus")
    subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=True, timeout=300)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=60)
    return str(folder / "usr/bin/promtool")


def test_alerts_fire_when_they_should(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", HERE / "rules_test.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
