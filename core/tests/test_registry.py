"""Fetching a version's files from a registry that is a folder, by MLflow's own client."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from watchkeeper.registry import Registry, RegistryError

MODEL = "pump-failure"
URI = f"mlflow://{MODEL}/1"
FILES = {"manifest.json": "{}", "failure.onnx": "rows", "gate.json": "{}", "deep/notes.txt": "n"}
OWN = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
# As a container of KServe's sees it: a volume on a file system that cannot be written.
MOUNTED = """
mount --bind "$1" "$1"
mount -t tmpfs volume "$1/volume"
mount -o remount,bind,ro "$1"
if touch "$1/beside" 2>/dev/null; then exit 9; fi
exec "$2" -c "$3" "$1/volume"
"""
FETCH = """
import json, sys
from pathlib import Path
from watchkeeper.registry import Registry

folder = Path(sys.argv[1])
for _ in range(2):  # the second time finds it there
    Registry().download("mlflow://pump-failure/1", folder)
found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
print(json.dumps([found, folder.is_mount()]))
"""


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"file://{tmp_path}/registry"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name, text in FILES.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    client = MlflowClient(uri, uri)
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, source=str(tmp_path / "made"))


def read(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


class Refuses(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.headers.get("Authorization") is None) * 401 or 403)

    def log_message(self, *_: object) -> None:
        pass


def test_who_is_not_let_in_is_told_from_a_registry_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for name in ("", "me"):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", name)
            with pytest.raises(RegistryError) as error:
                Registry(f"http://127.0.0.1:{server.server_port}").aliases(MODEL)
            assert error.value.refused
        server.shutdown()
        thread.join()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as error:
        Registry("http://127.0.0.1:1").aliases(MODEL)
    assert not error.value.refused


@pytest.mark.parametrize("there", [True, False])
def test_a_version_is_fetched_whole_and_nothing_else_is_left(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "place"
    folder = place / "version"
    (folder if there else place).mkdir(parents=True)
    Registry().download(URI, folder)
    assert read(place) == {f"version/{name}": text for name, text in FILES.items()}
    assert [path.name for path in place.iterdir()] == ["version"]


def test_a_version_is_fetched_into_a_volume_beside_which_nothing_can_be_written(
    tmp_path: Path,
) -> None:
    if subprocess.run([*OWN, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounts need root, or user namespaces")
    (tmp_path / "root" / "volume").mkdir(parents=True)
    done = subprocess.run(
        [*OWN, "sh", "-euc", MOUNTED, "sh", tmp_path / "root", sys.executable, FETCH],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [FILES, True]
    assert list((tmp_path / "root" / "volume").iterdir()) == [], "the mount was its own"
