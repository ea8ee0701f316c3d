"""The clients nobody here wrote, against a server nobody here wrote."""

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
from waiting import wait_for

from watchkeeper.demo import system
from watchkeeper.demo.checking import read_answers
from watchkeeper.demo.clients import KITS
from watchkeeper.demo.sender import Progress
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.worlds import WorldError, find

WORLD = find("ai4i-failure")
SERVER = Path(__file__).with_name("a_v2_server.py")


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


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
    traffic: Traffic, port: int, enough: Callable[[Progress], bool], **plan: float
) -> Progress:
    await traffic.start(endpoints(port), "secret", keep_answers=True, **plan)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(120):
            while not enough(traffic.progress()):
                traffic.check()
                await asyncio.sleep(0.05)
    finally:
        await traffic.stop()
    return traffic.progress()


def test_four_clients_ask_keep_each_answer_and_tell_the_labels_late(
    server: tuple[int, Path], tmp_path: Path
) -> None:
    port, feedback = server
    traffic = Traffic(tmp_path / "traffic", WORLD)

    def enough(progress: Progress) -> bool:
        kept = [lines_of(traffic.answers_file(kit)) for kit in KITS]  # one may begin much later
        return progress.labels >= 100 and min(kept) >= 50

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
        kept = [a for a in answers if a.protocol == protocol]
        assert counts.sent == counts.answered == len(kept) > 40
        assert counts.failed == 0
    assert len({a.prediction for a in answers}) == len(answers)
    for answer in answers:
        score = answer.inputs["torque"] / 100
        assert answer.outputs == {
            "failure_probability": pytest.approx(score),
            "failure": int(score >= 0.5),
            "risk_level": "HIGH" if score >= 0.5 else "LOW",
        }
        assert answer.version == 7

    told = [label for line in feedback.read_bytes().splitlines() for label in labels_of(line)]
    asked = {a.prediction for a in answers}
    assert len(told) == len(set(told)) == progress.labels  # also those of the post that got a 503
    assert set(told) <= asked
    assert progress.labels + progress.labels_never_sent == len(answers)
    assert progress.labels_lost == 0
    assert progress.labels_never_sent < 0.15 * len(answers)


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def labels_of(line: bytes) -> list[str]:
    found = msgspec.json.decode(line)["labels"]
    assert all(label["row"] == 0 and label["value"] in (0, 1) for label in found)
    return [label["prediction_id"] for label in found]


def test_what_fails_is_counted_and_never_asked_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)  # nobody listens there
    progress = asyncio.run(
        run(
            Traffic(tmp_path / "traffic", WORLD),
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


def test_a_scenario_that_there_is_none_of_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"no scenario 'flood'; there is steady: .*hot-hall"):
        Traffic(tmp_path / "traffic", WORLD, "flood")


def test_machines_switch_while_the_traffic_runs(server: tuple[int, Path], tmp_path: Path) -> None:
    port, _ = server
    traffic = Traffic(tmp_path / "traffic", WORLD)

    def hot_for_a_while(_: Progress) -> bool:
        kept = [lines_of(traffic.answers_file(kit)) for kit in KITS]
        if min(kept) < 20:
            return False
        traffic.switch("hot-hall")
        return min(kept) >= 300

    asyncio.run(run(traffic, port, hot_for_a_while, rate=80.0))
    for kit in KITS:
        air = [a.inputs["air_temperature"] for a in read_answers([traffic.answers_file(kit)])]
        assert sum(air[:20]) / 20 == pytest.approx(300, abs=2)
        assert sum(air[-20:]) / 20 == pytest.approx(306, abs=2)


def test_a_sender_whose_parent_is_killed_ends_by_itself(
    server: tuple[int, Path], tmp_path: Path
) -> None:
    port, _ = server
    script = (
        "import asyncio, pathlib, sys\n"
        "from watchkeeper.demo import system\n"
        "from watchkeeper.demo.senders import Traffic\n"
        "from watchkeeper.demo.worlds import find\n"
        "async def main():\n"
        "    t = Traffic(pathlib.Path(sys.argv[1]), find('ai4i-failure'))\n"
        f"    there = system.Endpoints('http://127.0.0.1:{port}', '', '', '', '')\n"
        "    await t.start(there, 'secret')\n"
        "    print(*(p.pid for p in t._processes), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "traffic")], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        asks = [tmp_path / "traffic" / f"progress-{kit}.json" for kit in KITS]
        wait_for(lambda: all(path.exists() for path in asks), what="both senders send")
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(lives, pids)), what="the senders end")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
