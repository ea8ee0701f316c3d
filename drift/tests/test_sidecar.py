"""The sidecar as a process: shutdown, settings, memory, and the way from a record to a run."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from fake_platform import FakePlatform
from free_ports import free_port
from pump import MODEL, append, labels_for, make_version, predictions, rows
from sidecars import running
from sqlalchemy import select
from waiting import wait_for

from watchkeeper.core.events import EpisodeChanged, Event, Promoted
from watchkeeper.core.exit_codes import EXIT_RETRY
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.record import Gap, Record
from watchkeeper.core.spool import segments
from watchkeeper.ledger import Ledger, migrate, tables
from watchkeeper.ledger.episodes import attempts
from watchkeeper.ledger.events import emit, history


class Process:
    """A sidecar in a process of its own."""

    def __init__(self, folder: Path, **changes: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            "WATCHKEEPER_MODEL": MODEL,
            "WATCHKEEPER_VERSION": "1",
            "WATCHKEEPER_MODEL_FOLDER": str(folder / "version"),
            "WATCHKEEPER_SPOOL": str(folder / "spool"),
            "WATCHKEEPER_LEDGER_URL": f"sqlite:///{folder}/ledger.db",
            "WATCHKEEPER_PLATFORM": f"local:{folder}",
            "WATCHKEEPER_PORT": str(self.port),
            "WATCHKEEPER_POLL_SECONDS": "0.02",
            **changes,
        }
        self._log_file = folder / f"{self.port}.log"
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "watchkeeper.drift"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def log(self) -> str:
        return self._log_file.read_text()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=5)

    def ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            assert self.process.poll() is None, self.log()
            return False


@pytest.fixture
def started() -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for one in processes:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def ids(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return [row.id for row in connection.execute(select(tables.predictions.c.id))]


def spool(ledger: Ledger) -> tuple[int, bool]:
    with ledger.read() as connection:
        row = connection.execute(select(tables.spools)).one()
    return (row.lost, row.closed)


def test_the_ledger_is_exact_if_sidecars_are_killed_while_they_ship(
    tmp_path: Path, ledger: Ledger, started: list[Process]
) -> None:
    chance = random.Random(1)
    data = predictions(rows(12_000, 1))
    labels = labels_for(data[::7], 1.0) + labels_for(data[::70], 0.0)
    lines: list[Record] = [*data, *labels, *(Gap(MODEL, 1, n, 1.0, 2.0) for n in range(50))]
    chance.shuffle(lines)
    parts = [lines[n::12] for n in range(12)]
    for number, part in enumerate(parts, 1):
        append(tmp_path / "spool", part, number)
        if number % 2 == 0:
            process = Process(tmp_path)
            started.append(process)
            before = len(ids(ledger))
            wait_for(lambda before=before: len(ids(ledger)) > before)  # type: ignore[misc]
            time.sleep(chance.random() * 0.05)  # then it is killed at any line
            process.end(signal.SIGKILL)
    last = Process(tmp_path)
    started.append(last)
    wait_for(last.ready)
    assert last.end(signal.SIGTERM) == 0
    assert sorted(ids(ledger)) == sorted(p.id for p in data)
    assert spool(ledger) == (sum(range(50)), True)
    with ledger.read() as connection:
        labelled = len(connection.execute(select(tables.labels)).all())
    assert labelled == len(data[::7]) + len({p.id for p in data[::70]} - {p.id for p in data[::7]})
    assert segments(tmp_path / "spool") == [12]


def test_a_graceful_shutdown_ships_all_records_and_closes_the_spool(
    tmp_path: Path, ledger: Ledger, started: list[Process]
) -> None:
    process = Process(tmp_path, WATCHKEEPER_POLL_SECONDS="30")
    started.append(process)
    wait_for(process.ready)
    append(tmp_path / "spool", list(predictions(rows(5000, 1))))
    assert process.end(signal.SIGTERM) == 0
    assert len(ids(ledger)) == 5000
    assert spool(ledger) == (0, True)


def test_a_ledger_that_is_created_late_receives_all_records(
    tmp_path: Path, started: list[Process]
) -> None:
    late = f"sqlite:///{tmp_path}/late/ledger.db"
    append(tmp_path / "spool", list(predictions(rows(50, 1))))
    process = Process(tmp_path, WATCHKEEPER_LEDGER_URL=late)
    started.append(process)
    wait_for(lambda: "records" in process.log())
    assert process.get("/healthz").status_code == 200
    assert process.get("/readyz").status_code == 503
    migrate(late)
    wait_for(process.ready)
    ledger = Ledger(late)
    assert len(ids(ledger)) == 50
    ledger.close()


def test_records_that_cannot_be_shipped_stay_in_the_spool_and_are_reported(
    tmp_path: Path, started: list[Process]
) -> None:
    append(tmp_path / "spool", list(predictions(rows(5, 1))))
    process = Process(
        tmp_path,
        WATCHKEEPER_LEDGER_URL=f"sqlite:///{tmp_path}/none/ledger.db",
        WATCHKEEPER_DRAIN_SECONDS="0.1",
    )
    started.append(process)
    wait_for(lambda: "they stay in the spool" in process.log())
    assert process.end(signal.SIGTERM) == 1
    assert "it stays in the spool" in process.log()
    assert (tmp_path / "spool" / "00000001.jsonl").stat().st_size > 0


def test_a_sidecar_that_does_not_watch_needs_little_memory(
    tmp_path: Path, ledger: Ledger, started: list[Process]
) -> None:
    make_version(tmp_path / "version", rows(2000, 1))
    emit(ledger, Event("other", MODEL, 2, 1.0, "another version", Promoted()))
    append(tmp_path / "spool", list(predictions(rows(2000, 2))))
    process = Process(tmp_path)
    started.append(process)
    wait_for(process.ready)
    wait_for(lambda: process.get("/drift").json().get("watching") is False)
    used = int(Path(f"/proc/{process.process.pid}/statm").read_text().split()[1]) * 4096
    assert used < 100 * 2**20
    metrics = process.get("/metrics").text
    shipped = f'watchkeeper_records_shipped_total{{model="{MODEL}",version="1"}} 2000.0'
    assert shipped in metrics
    assert "production is version 2" in process.get("/drift").json()["reason"]
    assert process.get("/healthz").text == "live\n"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WATCHKEEPER_VERSION", "seven", "WATCHKEEPER_VERSION='seven'"),
        ("WATCHKEEPER_DRIFT_POLICY", "{", "WATCHKEEPER_DRIFT_POLICY"),
        ("WATCHKEEPER_DRIFT_POLICY", '{"windw": 3}', "WATCHKEEPER_DRIFT_POLICY: .*windw"),
        ("WATCHKEEPER_LEDGER_URL", "oracle://host", "oracle is not supported"),
    ],
)
def test_the_error_names_an_invalid_setting(
    tmp_path: Path, started: list[Process], variable: str, value: str, message: str
) -> None:
    process = Process(tmp_path, **{variable: value})
    started.append(process)
    assert process.process.wait(30) == 2
    assert re.search(message, process.log())


def test_the_error_names_a_port_that_is_in_use(
    tmp_path: Path, url: str, started: list[Process]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        process = Process(tmp_path, WATCHKEEPER_PORT=port, WATCHKEEPER_LEDGER_URL=url)
        started.append(process)
        assert process.process.wait(30) == 2
    assert f"127.0.0.1:{port} (WATCHKEEPER_PORT)" in process.log()


def test_drift_of_shipped_records_starts_a_training_run(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    policy = DriftPolicy(window=200, every=50, minimum_labels=500, minimum_positives=20)
    make_version(tmp_path / "version", rows(2000, 1))
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "the first", Promoted()))
    calm = predictions(rows(500, 2))
    drifted = predictions(rows(600, 3, vibration_shift=15.0), first=500)
    platform = FakePlatform()
    with running(
        tmp_path,
        url,
        lambda: platform,
        drift_policy=msgspec.to_builtins(policy),
        retention={"days": 1e6},  # the record times are in 1970
    ) as sidecar:
        append(tmp_path / "spool", [*calm, *drifted])
        wait_for(lambda: sidecar.status.drift and sidecar.status.drift.episode)
        drift = sidecar.status.drift
        assert drift is not None
        assert drift.episode is not None
        assert drift.episode.state == "waiting-for-labels"
        assert platform.created == []
        append(tmp_path / "spool", [*labels_for(drifted[:560], 1.0), *labels_for(calm)])
        wait_for(lambda: platform.created)
    (run,) = platform.created
    assert run.name == f"{MODEL}-v1-a1"
    assert run.arguments()[:3] == [MODEL, "--run", f"{MODEL}-v1-a1"]
    assert "vibration" in run.trigger
    assert [a.run for a in attempts(ledger, MODEL)] == [run.name]
    events = history(ledger, MODEL, kind=EpisodeChanged)
    assert [e.details.state for e in events] == ["waiting-for-labels", "training"]
    assert events[0].details.policy["window"] == 200
    assert spool(ledger) == (0, True)


def test_a_replaced_secret_ends_the_process_and_leaves_the_spool_open(
    tmp_path: Path, ledger: Ledger, started: list[Process]
) -> None:
    secret = tmp_path / "ledger-url"
    secret.write_text("sqlite:////nowhere/ledger.db")
    append(tmp_path / "spool", predictions(rows(10, 1)))
    process = Process(tmp_path, WATCHKEEPER_LEDGER_URL_FILE=str(secret))
    started.append(process)
    wait_for(lambda: "they stay in the spool" in process.log())
    secret.write_text(f"sqlite:///{tmp_path}/ledger.db")
    assert process.process.wait(60) == EXIT_RETRY
    assert "WATCHKEEPER_LEDGER_URL_FILE, whose file has changed" in process.log()
    again = Process(tmp_path, WATCHKEEPER_LEDGER_URL_FILE=str(secret))
    started.append(again)
    wait_for(lambda: len(ids(ledger)) == 10)
    assert spool(ledger) == (0, False)
