"""The samples of the manual, run as they stand there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import a_version
import pytest
from conftest import TOKEN, Server

from watchkeeper.contracts.record import LabelRecord, Prediction
from watchkeeper.contracts.signature import Column

MANUAL = Path(__file__).parents[2] / "docs" / "requests.md"
ADDRESS = "127.0.0.1:8080"
MODEL = "ai4i-failure"
COLUMNS = (
    Column("type", "BYTES", categories=("L", "M", "H")),
    Column("air_temperature", "FP64", "K", 250, 350),
    Column("process_temperature", "FP64", "K", 250, 350),
    Column("rotational_speed", "FP64", "rpm", 0, 5000),
    Column("torque", "FP64", "Nm", 0, 200),
    Column("tool_wear", "FP64", "min", 0, 1000),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("manual")
    version = a_version.make(home / "version", columns=COLUMNS, model=MODEL, trees=5)
    server = Server(version, home, model=MODEL, version=1).start()
    yield server
    server.kill()


def blocks() -> list[tuple[str, str]]:
    """Language and text of every block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)


def form(value: Any) -> Any:
    """A JSON value without what differs between two answers."""
    if isinstance(value, dict):
        return {name: form(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [form(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}-[0-9a-f-]+", value):
        return "a prediction id"
    return "a risk" if value in ("LOW", "MEDIUM", "HIGH") else type(value).__name__


def test_the_shell_samples_answer_as_the_manual_says(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / ".watchkeeper" / "secrets" / "feedback-token"
    secret.parent.mkdir(parents=True)
    secret.write_text(TOKEN)
    mark = "===== the end of a sample"
    samples = [
        (text, follower[1] if follower[0] == "json" else "")
        for (language, text), follower in zip(blocks(), [*blocks()[1:], ("", "")], strict=True)
        if language == "sh"
    ]
    assert len(samples) > 5
    script = f"\necho; echo '{mark}'\n".join(text for text, _ in samples)
    done = subprocess.run(
        ["bash", "-eu"],
        input=script.replace(ADDRESS, f"127.0.0.1:{server.http_port}"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (text, expected), got in zip(samples, done.stdout.split(mark), strict=True):
        if expected:
            assert form(json.loads(got)) == form(json.loads(expected)), text
        if '"error"' in expected:
            assert json.loads(got) == json.loads(expected)
    records = server.records()
    assert any(isinstance(r, Prediction) and r.subject == "mill 17" for r in records)
    assert any(isinstance(r, LabelRecord) and r.row == 0 for r in records)


@pytest.mark.parametrize("module", ["grpc", "http"])
def test_the_python_sample_runs_with_both_clients(server: Server, module: str) -> None:
    (sample,) = [text for language, text in blocks() if language == "python"]
    port = server.grpc_port if module == "grpc" else server.http_port
    sample = sample.replace(ADDRESS, f"127.0.0.1:{port}")
    done = subprocess.run(
        [sys.executable, "-c", sample.replace("tritonclient.grpc as", f"tritonclient.{module} as")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"\[[01]\.\d*\] \[b'(LOW|MEDIUM|HIGH)'\]", done.stdout), done.stdout
    record = server.last()
    assert (record.subject, record.status, record.protocol) == ("mill 17", "OK", module)
