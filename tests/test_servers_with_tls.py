"""PostgreSQL and MLflow, started as in their images with a certificate, and its renewal."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest
from databases import as_user
from free_ports import HOST, free_port
from mlflow.tracking import MlflowClient
from mlflow_server import MLFLOW
from trustme import CA
from waiting import wait_for

from watchkeeper.registry import Registry, RegistryError

IMAGES: Final = Path(__file__).parents[1] / "images"
PROGRAMS: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PASSWORD: Final = "a password"


class Server:
    """A start script with a folder for its certificate.

    Attributes:
        folder: a folder that belongs to the user of the server.
        ca: the file by which clients know the authority.
        port: the port of the server.
        environment: the variables of the script.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.crt"
        self.port = free_port()
        self.environment = {"HOME": str(folder), "TMPDIR": str(folder)}
        (folder / "tls").mkdir()
        self.renew()

    def renew(self) -> None:
        """Replace the certificate by that of another authority, and the file of clients."""
        authority = CA()
        made = authority.issue_cert(HOST)
        self._write("tls/tls.key", made.private_key_pem.bytes())
        self._write("tls/tls.crt", made.cert_chain_pems[0].bytes())
        self._write("ca.crt", authority.cert_pem.bytes())

    def _write(self, name: str, content: bytes) -> None:
        new = self.folder / "new"
        new.touch(mode=0o600)
        new.write_bytes(content)
        if os.geteuid() == 0:  # as kubelet does with fsGroup
            shutil.chown(new, "root", "nogroup")
            new.chmod(0o440)
        new.replace(self.folder / name)

    @contextlib.contextmanager
    def running(self, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the script for a block."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="tls-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    try:
        yield Server(folder)
    finally:
        shutil.rmtree(folder)


def connected(server: Server, sslmode: str, ca: Path) -> bool:
    """Connect to PostgreSQL, and return whether the connection is encrypted."""
    with psycopg.connect(
        host=HOST,
        port=server.port,
        user="watchkeeper",
        password=PASSWORD,
        dbname="ledger",
        sslmode=sslmode,
        sslrootcert=str(ca),
        connect_timeout=5,
    ) as connection:
        return connection.pgconn.ssl_in_use


def answers(server: Server) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        return connected(server, "verify-full", server.ca)
    return False


@pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is missing; run `make databases`")
def test_postgresql_needs_tls_and_uses_a_renewed_certificate(server: Server) -> None:
    password = server.folder / "password"
    password.write_text(PASSWORD)
    server.environment |= {
        "PATH": f"{IMAGES}:{PROGRAMS[-1]}:{os.environ['PATH']}",
        "PGDATA": str(server.folder / "data"),
        "PGPORT": str(server.port),
        "POSTGRESQL_PASSWORD_FILE": str(password),
        "POSTGRESQL_TLS": str(server.folder / "tls"),
    }
    command = as_user([str(IMAGES / "postgresql/start")])
    with server.running(command) as process:
        wait_for(lambda: answers(server), what="PostgreSQL answers")
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            connected(server, "disable", server.ca)
        old = server.folder / "old.crt"
        old.write_bytes(server.ca.read_bytes())
        server.renew()
        wait_for(lambda: answers(server), 30.0, what="it uses the new certificate")
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            connected(server, "verify-full", old)
        assert process.poll() is None
    assert process.returncode == 0


def check_files(client: MlflowClient, folder: Path) -> None:
    """Upload a file as training does, and download it as a server does."""
    run = client.create_run(client.create_experiment("pump")).info.run_id
    client.log_text(run, "content", "file.txt")
    assert client.get_run(run).info.artifact_uri.startswith("mlflow-artifacts:/")
    assert Path(client.download_artifacts(run, "file.txt", str(folder))).read_text() == "content"


def test_mlflow_speaks_https_only_and_ends_to_read_a_renewed_certificate(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.environment |= {
        "PATH": f"{IMAGES}:{MLFLOW.parent}:{os.environ['PATH']}",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{server.folder}/mlflow.db",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TLS": str(server.folder / "tls"),
    }
    command = [str(IMAGES / "mlflow/start"), "server", f"--port={server.port}", "--workers=1"]
    command += [f"--artifacts-destination={server.folder}/artifacts"]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(server.ca))
    registry = Registry(f"https://{HOST}:{server.port}")

    def registered() -> bool:
        with contextlib.suppress(RegistryError):
            return registry.versions("pump") == []
        return False

    with server.running(command) as process:
        wait_for(registered, what="MLflow answers")
        check_files(registry.client, tmp_path)
        with pytest.raises(RegistryError):
            Registry(f"http://{HOST}:{server.port}").versions("pump")
        server.renew()
        process.wait(timeout=60)
    with server.running(command):
        wait_for(registered, what="the same client knows the new certificate")
