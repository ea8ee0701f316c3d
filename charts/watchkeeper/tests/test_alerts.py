"""Each alert rings when it should and not before, as Prometheus itself reads the rules."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Find promtool, or take it out of Debian's package: installed, that would start a server."""
    if found := shutil.which("promtool"):
        return found
    if shutil.which("apt-get") is None:
        pytest.skip("no promtool on the PATH, and no apt-get to fetch Debian's prometheus with")
    folder = tmp_path_factory.mktemp("prometheus")
    subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, check=True, timeout=300)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=60)
    return str(folder / "usr/bin/promtool")


def test_alerts_ring_when_they_should(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", HERE / "rules_test.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
