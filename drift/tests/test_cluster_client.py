"""The cluster client in the environment of the sidecar.

The client declares pydantic 2 for its generated models, and alibi-detect needs pydantic 1. Only the
dynamic client is used, which needs no models; this test notices when that changes.
"""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from watchkeeper.platforms import PlatformError, TrainingRun, open_platform

TEMPLATE = {"spec": {"template": {"spec": {"containers": [{"name": "training"}]}}}}


class ApiServer(http.server.BaseHTTPRequestHandler):
    """Answers for one CronJob, and creates Jobs."""

    jobs: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        if self.path.endswith("/cronjobs/pump-failure-training"):
            return self.answer(200, {"spec": {"jobTemplate": TEMPLATE}})
        if "/jobs?" in self.path:
            return self.answer(200, {"items": list(self.jobs.values())})
        return self.answer(404, {"kind": "Status", "message": "not found"})

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if job["metadata"]["name"] in self.jobs:
            return self.answer(409, {"kind": "Status", "message": "already exists"})
        self.jobs[job["metadata"]["name"]] = job
        return self.answer(201, job)

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    ApiServer.jobs = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ApiServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        path = tmp_path / "kubeconfig"
        address = f"http://127.0.0.1:{server.server_port}"
        path.write_text(
            yaml.safe_dump(
                {
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": address}}],
                    "users": [{"name": "test", "user": {"token": "test"}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                }
            )
        )
        yield path
        server.shutdown()
        thread.join()


def test_a_sidecar_creates_training_jobs_once(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    platform = open_platform("kube:pumps")
    run = TrainingRun("pump-failure-v1-a1", "pump-failure", "drift", parameters={"flow": "1"})
    assert platform.create_run(run)
    assert not platform.create_run(run)
    assert platform.runs("pump-failure") == {run.name: "running"}
    job = ApiServer.jobs[run.name]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == run.arguments()
    with pytest.raises(PlatformError, match="no CronJob press-failure-training"):
        platform.create_run(TrainingRun("press-failure-v1-a1", "press-failure", "drift"))
    platform.close()  # type: ignore[attr-defined]
