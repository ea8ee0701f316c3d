"""Plain DVC restores the training table of a version, from a folder and from S3."""

import os
import subprocess
from pathlib import Path

import pytest

from watchkeeper.registry.snapshots import SnapshotSettings, SnapshotStore, dvc_file

pytest_plugins = ["object_store"]
pytestmark = pytest.mark.nightly  # DVC has more than a hundred dependencies

UV = Path(__file__).parents[1] / ".uv" / "bin" / "uv"
DVC = "dvc[s3]==3.67.1"
CONTENT = bytes(range(256)) * 999


def dvc(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [str(UV), "tool", "run", "--from", DVC, "dvc", *words],
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"dvc {' '.join(words)}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_dvc_pull_restores_the_table_byte_for_byte(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = SnapshotSettings(f"file://{tmp_path}/tables")
    remote = {"url": f"{tmp_path}/tables"}
    if kind == "s3":
        s3 = request.getfixturevalue("s3")
        settings = s3.settings("tables-for-dvc")
        remote = {
            "url": settings.snapshots_url,
            "endpointurl": settings.snapshots_endpoint,
            "region": settings.snapshots_region,
            "access_key_id": settings.snapshots_access_key,
            "secret_access_key": settings.snapshots_secret_key,
        }
    (tmp_path / "table").write_bytes(CONTENT)
    store = SnapshotStore(settings)
    snapshot = store.describe(tmp_path / "table", 10)
    store.put(tmp_path / "table", snapshot)

    project = tmp_path / "project"
    project.mkdir()
    dvc(project, "init", "--no-scm")
    dvc(project, "remote", "add", "--default", "store", remote.pop("url"))
    for name, value in remote.items():
        dvc(project, "remote", "modify", "store", name, value)
    (project / "rows.parquet.dvc").write_text(dvc_file(snapshot, "rows.parquet"))
    dvc(project, "pull")
    assert (project / "rows.parquet").read_bytes() == CONTENT
