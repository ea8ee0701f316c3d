"""Every connection on the node, by the kernel's own record of them, and which pods they were."""

import json
import os
import re
import signal
import subprocess
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from kube import CLUSTER, ENVIRONMENT, ROOT
from policies import Place

PYTHON = ROOT / "cluster/.venv/bin/python"
INSIDE = (str(PYTHON), "-m", "watchkeeper.cluster", "inside")
EVENTS = ("conntrack", "-E", "-e", "NEW", "-o", "timestamp", "-b", "8388608")
WATCH = ("get", "pods", "--all-namespaces", "--watch", "--output-watch-events", "--output=json")
LOST = "ENOBUFS"  # what conntrack says when it could not keep up
# What was asked for, and after all translation of addresses who answers.
LINE = re.compile(
    r"\[(?P<time>[\d.]+)\s*\]\s+\[NEW\]\s+(?P<protocol>tcp|udp)\s.*?"
    r"src=(?P<source>\S+) dst=\S+ sport=\d+ dport=(?P<asked>\d+) (?:\[UNREPLIED\] )?"
    r"src=(?P<target>\S+) dst=\S+ sport=(?P<port>\d+)"
)


class Connection(msgspec.Struct, frozen=True):
    """Who connected to what; ``asked`` is the port that was asked for, a Service's or a node's."""

    source: Place
    target: Place
    port: int
    asked: int
    protocol: str


class Recorder:
    """Records connections from its making on, and which pod had which address when."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "connections.txt"
        self.node = _addresses()
        self._pods: dict[str, dict[str, tuple[float, Place]]] = {}  # by address and uid
        self._ended = threading.Event()
        with self.file.open("wb") as output:
            self._conntrack = subprocess.Popen(
                [*INSIDE, *EVENTS],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "WATCHKEEPER_CLUSTER": str(CLUSTER)},
                start_new_session=True,
            )
        self._watch: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that it records, and has lost nothing."""
        text = self.file.read_text(errors="replace")
        assert self._conntrack.poll() is None, f"conntrack has ended: {text[-1000:]}"
        assert LOST not in text, "the kernel had more connections to tell than conntrack could read"

    def stop(self) -> None:
        self._ended.set()
        if self._watch is not None:
            self._watch.kill()
        self._thread.join(timeout=30)
        # its group: the one inside has to end, not only the command that entered the namespaces
        os.killpg(self._conntrack.pid, signal.SIGTERM)
        self._conntrack.wait(timeout=30)

    def connections(self) -> list[Connection]:
        """Return all connections so far, each kind of them once."""
        found = {
            line.group("source", "target", "port", "asked", "protocol"): line
            for line in LINE.finditer(self.file.read_text(errors="replace"))
        }
        return [
            Connection(
                self.place(line["source"], float(line["time"])),
                self.place(line["target"], float(line["time"])),
                int(line["port"]),
                int(line["asked"]),
                line["protocol"].upper(),
            )
            for line in found.values()
        ]

    def place(self, address: str, when: float) -> Place:
        """Tell which pod had an address at a time: the last one that was made before it."""
        pods = sorted(self._pods.get(address, {}).values(), key=lambda known: known[0])
        earlier = [place for made, place in pods if made <= when]
        return earlier[-1] if earlier else Place(address)

    def _follow(self) -> None:
        while not self._ended.is_set():
            self._watch = subprocess.Popen(
                ["kubectl", *WATCH],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=ENVIRONMENT,
            )
            with self._watch as watch:
                assert watch.stdout is not None
                for line in watch.stdout:  # an event each, unlike other JSON of kubectl
                    event = json.loads(line)
                    if event["type"] != "ERROR":
                        self._take(event["object"])
            self._ended.wait(1.0)  # the API server may be away

    def _take(self, pod: dict[str, Any]) -> None:
        address, metadata = pod.get("status", {}).get("podIP"), pod["metadata"]
        if not address or pod["spec"].get("hostNetwork"):
            return
        containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        place = Place(
            address,
            metadata["name"],
            metadata["namespace"],
            metadata.get("labels", {}),
            {
                port["name"]: (port.get("protocol", "TCP"), port["containerPort"])
                for container in containers
                for port in container.get("ports", [])
                if "name" in port
            },
        )
        made = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
        self._pods.setdefault(address, {})[metadata["uid"]] = (made, place)


def _addresses() -> set[str]:
    """Return all addresses of the node itself: probes come from them, and no policy stops these."""
    said = subprocess.run(
        [*INSIDE, "ip", "-json", "-4", "address"],
        capture_output=True,
        check=True,
        env={**ENVIRONMENT, "WATCHKEEPER_CLUSTER": str(CLUSTER)},
        timeout=30,
    )
    return {one["local"] for link in json.loads(said.stdout) for one in link["addr_info"]}
