"""Clients of other projects send to a server of another project."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from free_ports import free_ports
from pumps import PLANT
from waiting import wait_for

from watchkeeper.demo import system
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.messages import TrafficProgress
from watchkeeper.demo.offline_comparison import read_answers
from watchkeeper.demo.plants import PlantError
from watchkeeper.demo.senders import Traffic

SERVER = Path(__file__).with_name("v2_server.py")


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def endpoints(port: int) -> system.Endpoints:
    return system.Endpoints(
        v2=f"http://127.0.0.1:{port}", mlflow="", drift="", metrics="", ledger=""
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    ports = free_ports(3)
    feedback = tmp_path / "feedback.jsonl"
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, SERVER, str(ports[0]), feedback, *map(str, ports[1:])],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(
            lambda: all(map(listens, ports)) or process.poll() is not None,
            what="the server listens",
        )
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        yield ports[0], feedback
    finally:
        process.kill()
        process.wait(timeout=10)


async def run(
    traffic: Traffic, port: int, enough: Callable[[TrafficProgress], bool], **plan: float
) -> TrafficProgress:
    await traffic.start(endpoints(port), "secret", keep_answers=True, **plan)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(120):
            while not enough(traffic.progress()):
                traffic.check()
                await asyncio.sleep(0.05)
    finally:
        await traffic.stop()
    return traffic.progress()


def test_four_clients_write_every_answer_and_send_late_labels(
    server: tuple[int, Path], tmp_path: Path
) -> None:
    port, feedback = server
    traffic = Traffic(tmp_path / "traffic", PLANT)

    def enough(progress: TrafficProgress) -> bool:
        written = [
            lines_of(traffic.answers_file(kit)) for kit in KITS
        ]  # one client can start much later
        return progress.labels >= 100 and min(written) >= 50

    progress = asyncio.run(run(traffic, port, enough, rate=80.0, label_delay=0.5))
    answers = read_answers(traffic.answers_file(kit) for kit in KITS)
    assert progress.finished
    assert not progress.errors
    assert {a.client for a in answers} == {
        "tritonclient-http",
        "tritonclient-grpc",
        "kserve-rest",
        "kserve-grpc",
    }
    for protocol, counts in progress.requests.items():
        written = [a for a in answers if a.protocol == protocol]
        assert counts.sent == counts.answered == len(written) > 40
        assert counts.failed == 0
    assert len({a.prediction for a in answers}) == len(answers)
    for answer in answers:
        score = answer.inputs["flow"] / 100
        assert answer.outputs == {
            "failure_probability": pytest.approx(score),
            "failure": int(score >= 0.5),
            "risk_level": "HIGH" if score >= 0.5 else "LOW",
        }
        assert answer.version == 7

    labelled = [label for line in feedback.read_bytes().splitlines() for label in labels_of(line)]
    answered = {a.prediction for a in answers}
    assert (
        len(labelled) == len(set(labelled)) == progress.labels
    )  # including the post that got a 503
    assert set(labelled) <= answered
    assert progress.labels + progress.labels_never_sent == len(answers)
    assert progress.labels_lost == 0
    assert progress.labels_never_sent < 0.15 * len(answers)


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def labels_of(line: bytes) -> list[str]:
    found = msgspec.json.decode(line)["labels"]
    assert all(label["row"] == 0 and label["value"] in (0, 1) for label in found)
    return [label["prediction_id"] for label in found]


def test_failed_requests_are_counted_and_not_repeated(tmp_path: Path) -> None:
    (port,) = free_ports(1)  # no server
    progress = asyncio.run(
        run(
            Traffic(tmp_path / "traffic", PLANT),
            port,
            lambda p: all(c.failed >= 10 for c in p.requests.values()),
            rate=40.0,
        )
    )
    for counts in progress.requests.values():
        assert counts.answered == 0
        assert counts.failed == counts.sent
    assert progress.errors
    assert progress.labels == 0


def test_unknown_scenario_is_an_error_that_lists_all(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match=r"no scenario 'flood'; its scenarios: steady: .*summer"):
        Traffic(tmp_path / "traffic", PLANT, "flood")


def test_scenario_is_switched_while_the_traffic_runs(
    server: tuple[int, Path], tmp_path: Path
) -> None:
    port, _ = server
    traffic = Traffic(tmp_path / "traffic", PLANT)

    def switched(_: TrafficProgress) -> bool:
        written = [lines_of(traffic.answers_file(kit)) for kit in KITS]
        if min(written) < 20:
            return False
        traffic.switch("summer")
        return min(written) >= 300

    asyncio.run(run(traffic, port, switched, rate=80.0))
    for kit in KITS:
        pressure = [a.inputs["inlet_pressure"] for a in read_answers([traffic.answers_file(kit)])]
        assert sum(pressure[:20]) / 20 == pytest.approx(300, abs=2)
        assert sum(pressure[-20:]) / 20 == pytest.approx(306, abs=2)


def test_sender_ends_when_its_parent_is_killed(server: tuple[int, Path], tmp_path: Path) -> None:
    port, _ = server
    script = (
        "import asyncio, pathlib, sys\n"
        "from watchkeeper.demo import system\n"
        "from watchkeeper.demo.senders import Traffic\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from pumps import PLANT\n"
        "async def main():\n"
        "    t = Traffic(pathlib.Path(sys.argv[1]), PLANT)\n"
        f"    there = system.Endpoints('http://127.0.0.1:{port}', '', '', '', '')\n"
        "    await t.start(there, 'secret')\n"
        "    print(*(p.pid for p in t._processes), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "traffic", SERVER.parent], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        files = [tmp_path / "traffic" / f"progress-{kit}.json" for kit in KITS]
        wait_for(lambda: all(path.exists() for path in files), what="both senders send")
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(lives, pids)), what="the senders end")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
