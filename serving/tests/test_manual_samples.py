"""The samples of the how-to page run as they are written."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_version
from conftest import TOKEN, Server

from watchkeeper.core.record import LabelRecord, Prediction
from watchkeeper.core.signature import Column

MANUAL = Path(__file__).parents[2] / "docs" / "how-to" / "call-a-model.md"
ADDRESS = "127.0.0.1:8080"


def blocks() -> list[tuple[str, str]]:
    """Language and text of every block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", MANUAL.read_text(), re.MULTILINE | re.DOTALL)


def first_request() -> tuple[str, tuple[Column, ...]]:
    """The model of the first sample, and columns that accept its values."""
    sample = next(text for language, text in blocks() if language == "sh")
    match = re.search(r"/v2/models/([^/]+)/infer -d '(.*)'", sample, re.DOTALL)
    assert match is not None, sample
    columns = [
        Column(
            each["name"],
            each["datatype"],
            categories=tuple(each["data"]) if each["datatype"] == "BYTES" else (),
        )
        for each in json.loads(match[2])["inputs"]
    ]
    return match[1], tuple(columns)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("manual")
    model, columns = first_request()
    version = sample_version.create_version(home / "version", columns=columns, model=model, trees=5)
    server = Server(version, home, model=model, version=1).start()
    yield server
    server.kill()


def form(value: Any) -> Any:
    """A JSON value without what differs between two answers."""
    if isinstance(value, dict):
        return {name: form(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [form(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}-[0-9a-f-]+", value):
        return "a prediction id"
    return "a risk" if value in ("LOW", "MEDIUM", "HIGH") else type(value).__name__


def test_shell_samples_have_the_documented_answers(server: Server, tmp_path: Path) -> None:
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
def test_python_sample_works_with_both_clients(server: Server, module: str) -> None:
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
