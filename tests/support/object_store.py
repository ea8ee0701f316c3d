"""An S3 service for tests, versitygw: ``pytest_plugins = ["object_store"]`` in a conftest.py."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import HOST, free_port
from kept_builds import MissingError, cached

from watchkeeper.registry.snapshots import SnapshotSettings

REQUIRED = os.environ.get("WATCHKEEPER_TEST_API_SERVER") == "required"  # by the same builds
START_SECONDS = 60.0


class S3:
    """One service over a folder: each bucket is a folder in ``buckets``."""

    access_key = "tester"

    def __init__(self, folder: Path) -> None:
        program = cached("versitygw-*/bin/versitygw")
        self.secret_key = secrets.token_hex(16)
        self.buckets = folder / "buckets"
        self.buckets.mkdir()
        self.port = free_port()
        self.endpoint = f"http://{HOST}:{self.port}"
        self._log = folder / "log"
        keys = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "--port", f"{HOST}:{self.port}", "posix", str(self.buckets)],
                stdout=log,
                stderr=log,
                env={**os.environ, **keys},
                start_new_session=True,
            )
        self._wait()

    def settings(self, bucket: str) -> SnapshotSettings:
        """Make a bucket, and return the settings of a store in it."""
        (self.buckets / bucket).mkdir(exist_ok=True)
        return SnapshotSettings(
            f"s3://{bucket}/tables", self.endpoint, "us-east-1", self.access_key, self.secret_key
        )

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"versitygw did not start:\n{self._log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """One service for all tests of a session; each test has buckets of its own."""
    folder = Path(tempfile.mkdtemp(prefix="watchkeeper-s3-"))
    try:
        try:
            service = S3(folder)
        except MissingError as missing:
            if REQUIRED:
                raise
            pytest.skip(str(missing))
        try:
            yield service
        finally:
            service.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
