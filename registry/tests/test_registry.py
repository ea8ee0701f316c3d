"""The registry client with a registry in a folder, which MLflow's own client reads."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from watchkeeper.core.settings import SettingsError
from watchkeeper.registry import Registry, RegistryError

MODEL = "pump-failure"
URI = f"mlflow://{MODEL}/1"
FILES = {"manifest.json": "{}", "failure.onnx": "rows", "gate.json": "{}", "deep/notes.txt": "n"}
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
# Like in a container of KServe: a volume on a read-only file system.
RUN_WITH_VOLUME = """
mount --bind "$1" "$1"
mount -t tmpfs volume "$1/volume"
mount -o remount,bind,ro "$1"
if touch "$1/beside" 2>/dev/null; then exit 9; fi
exec "$2" -c "$3" "$1/volume"
"""
DOWNLOAD = """
import json, sys
from pathlib import Path
from watchkeeper.registry import Registry

folder = Path(sys.argv[1])
for _ in range(2):  # the second one finds the files
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


def read_files(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


class DenyAll(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.headers.get("Authorization") is None) * 401 or 403)

    def log_message(self, *_: object) -> None:
        pass


def test_permission_errors_differ_from_a_registry_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), DenyAll) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for name in ("", "me"):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", name)
            with pytest.raises(RegistryError) as error:
                Registry(f"http://127.0.0.1:{server.server_port}").aliases(MODEL)
            assert error.value.permission_denied
        server.shutdown()
        thread.join()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as error:
        Registry("http://127.0.0.1:1").aliases(MODEL)
    assert not error.value.permission_denied


@pytest.mark.parametrize("address", ["", "mlflow:5000", "ftp://mlflow", "./mlruns"])
def test_an_address_that_is_not_of_a_registry_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI must be the URL"):
        Registry().aliases(MODEL)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("exists", [True, False])
def test_download_writes_all_files_and_no_others(tmp_path: Path, exists: bool) -> None:
    place = tmp_path / "place"
    folder = place / "version"
    (folder if exists else place).mkdir(parents=True)
    Registry().download(URI, folder)
    assert read_files(place) == {f"version/{name}": text for name, text in FILES.items()}
    assert [path.name for path in place.iterdir()] == ["version"]


def test_download_into_a_volume_on_a_read_only_file_system(
    tmp_path: Path,
) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounts need root, or user namespaces")
    (tmp_path / "root" / "volume").mkdir(parents=True)
    done = subprocess.run(
        [
            *UNSHARE,
            "sh",
            "-euc",
            RUN_WITH_VOLUME,
            "sh",
            tmp_path / "root",
            sys.executable,
            DOWNLOAD,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [FILES, True]
    assert list((tmp_path / "root" / "volume").iterdir()) == [], "the mount is private"
