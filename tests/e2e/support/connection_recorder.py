"""Records every connection on the node from the kernel's connection tracking, with its pods."""

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
from network_policies import Endpoint

PYTHON = ROOT / "dev/cluster/.venv/bin/python"
INSIDE = (str(PYTHON), "-m", "watchkeeper.cluster", "inside")
EVENTS = ("conntrack", "-E", "-e", "NEW", "-o", "timestamp", "-b", "8388608")
WATCH = ("get", "pods", "--all-namespaces", "--watch", "--output-watch-events", "--output=json")
LOST = "ENOBUFS"  # in the output of conntrack if it was too slow
# The requested address and port, then those after address translation.
LINE = re.compile(
    r"\[(?P<time>[\d.]+)\s*\]\s+\[NEW\]\s+(?P<protocol>tcp|udp)\s.*?"
    r"src=(?P<source>\S+) dst=\S+ sport=\d+ dport=(?P<requested>\d+) (?:\[UNREPLIED\] )?"
    r"src=(?P<target>\S+) dst=\S+ sport=(?P<port>\d+)"
)


class Connection(msgspec.Struct, frozen=True):
    """A connection.

    ``port`` is the port of the target. ``requested_port`` is the port before address translation,
    for example that of a Service.
    """

    source: Endpoint
    target: Endpoint
    port: int
    requested_port: int
    protocol: str


class ConnectionRecorder:
    """Records connections, and the pods of each address over time."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "connections.txt"
        self.node = _addresses()
        self._pods: dict[str, dict[str, tuple[float, Endpoint]]] = {}  # by address and uid
        self._stopping = threading.Event()
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
        """Check that it still records, and that no connection was lost."""
        text = self.file.read_text(errors="replace")
        assert self._conntrack.poll() is None, f"conntrack has ended: {text[-1000:]}"
        assert LOST not in text, "conntrack was too slow and has lost connections"

    def stop(self) -> None:
        """Stop recording."""
        self._stopping.set()
        if self._watch is not None:
            self._watch.kill()
        self._thread.join(timeout=30)
        # The process group: the child in the namespaces of the node must end too.
        os.killpg(self._conntrack.pid, signal.SIGTERM)
        self._conntrack.wait(timeout=30)

    def connections(self) -> list[Connection]:
        """Return all connections so far. Equal ones are returned once."""
        found = {
            line.group("source", "target", "port", "requested", "protocol"): line
            for line in LINE.finditer(self.file.read_text(errors="replace"))
        }
        return [
            Connection(
                self.endpoint(line["source"], float(line["time"])),
                self.endpoint(line["target"], float(line["time"])),
                int(line["port"]),
                int(line["requested"]),
                line["protocol"].upper(),
            )
            for line in found.values()
        ]

    def endpoint(self, address: str, when: float) -> Endpoint:
        """Return the endpoint of an address at a time: the last pod that was created before it."""
        pods = sorted(self._pods.get(address, {}).values(), key=lambda known: known[0])
        earlier = [endpoint for created, endpoint in pods if created <= when]
        return earlier[-1] if earlier else Endpoint(address)

    def _follow(self) -> None:
        while not self._stopping.is_set():
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
                for line in watch.stdout:  # one event per line
                    event = json.loads(line)
                    if event["type"] != "ERROR":
                        self._add(event["object"])
            self._stopping.wait(1.0)  # the API server may be down

    def _add(self, pod: dict[str, Any]) -> None:
        address, metadata = pod.get("status", {}).get("podIP"), pod["metadata"]
        if not address or pod["spec"].get("hostNetwork"):
            return
        containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        endpoint = Endpoint(
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
        created = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
        self._pods.setdefault(address, {})[metadata["uid"]] = (created, endpoint)


def _addresses() -> set[str]:
    """Return all addresses of the node. Probes come from them, and no policy blocks those."""
    done = subprocess.run(
        [*INSIDE, "ip", "-json", "-4", "address"],
        capture_output=True,
        check=True,
        env={**ENVIRONMENT, "WATCHKEEPER_CLUSTER": str(CLUSTER)},
        timeout=30,
    )
    return {each["local"] for link in json.loads(done.stdout) for each in link["addr_info"]}
