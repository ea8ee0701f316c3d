"""Apply objects with kubectl and wait for conditions."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.cluster.commands import last_lines, run
from watchkeeper.cluster.layout import ClusterError, Layout
from watchkeeper.cluster.supervisor import Status

log = logging.getLogger(__name__)

Object = dict[str, Any]
LOOK_SECONDS = 0.25
HOPELESS_EXITS = 6  # ends of a program during one wait, after which waiting is pointless
APPLY_SECONDS = 180.0
OWNER = "watchkeeper-cluster"


class Kubernetes:
    """kubectl as the cluster's administrator, with a diagnosis of failures."""

    def __init__(self, layout: Layout, kubectl: Path) -> None:
        self._layout = layout
        self._kubectl = kubectl

    def kubectl(self, *words: str | Path, seconds: float = 60, given: str | None = None) -> str:
        """Run kubectl; return its output."""
        cache = self._layout.folder / "kubectl-cache"
        command: list[str | Path] = [self._kubectl, "--kubeconfig", self._layout.kubeconfig]
        return run([*command, "--cache-dir", cache, *words], seconds=seconds, given=given)

    def get(self, *words: str) -> Object | None:
        """Return an object or a list of objects; None if it does not exist."""
        answer = self.kubectl("get", *words, "--ignore-not-found", "--output", "json")
        found: Object | None = json.loads(answer) if answer.strip() else None
        return found

    def apply(self, objects: Iterable[Object]) -> None:
        """Apply ``objects`` by server-side apply."""
        many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        words = ["apply", "--server-side", "--force-conflicts", f"--field-manager={OWNER}"]
        self.kubectl(*words, "--filename", "-", seconds=APPLY_SECONDS, given=json.dumps(many))

    def apply_files(self, *paths: Path) -> None:
        """Apply files, or all files in folders."""
        words = ["apply", "--server-side", "--force-conflicts", f"--field-manager={OWNER}"]
        for path in paths:
            words += ["--filename", str(path)]
        self.kubectl(*words, seconds=APPLY_SECONDS)

    def wait(self, what: str, holds: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until ``holds`` returns True; an API error counts as "not yet".

        Raises:
            ClusterError: the time limit is over, or a program of the node keeps ending; the message
                names the program and the end of its log.
        """
        deadline = time.monotonic() + seconds
        before = {name: one.exits for name, one in self.programs().items()}
        last = ""
        while True:
            try:
                if holds():
                    return
            except ClusterError as error:
                last = str(error)
            ends = {name: one.exits - before.get(name, 0) for name, one in self.programs().items()}
            hopeless = [name for name, count in ends.items() if count >= HOPELESS_EXITS]
            if hopeless or time.monotonic() > deadline:
                why = "a program keeps ending" if hopeless else f"waited {seconds:.0f} s"
                raise ClusterError(
                    f"not reached: {what} ({why})\n{self.diagnosis(before)}"
                    + (f"\n  last error: {last}" if last else "")
                )
            time.sleep(LOOK_SECONDS)

    def available(self, namespace: str, name: str, seconds: float = 180) -> None:
        """Wait until all replicas of the current generation of a Deployment are available."""
        kind = f"deployment/{name}"

        def holds() -> bool:
            found = self.get(kind, "--namespace", namespace)
            if found is None:
                return False
            status, wanted = found.get("status", {}), found["spec"]["replicas"]
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            fresh: bool = (
                status.get("updatedReplicas", 0) == status.get("availableReplicas", 0) == wanted
            )
            return seen and fresh

        try:
            self.wait(f"{kind} in {namespace} is available", holds, seconds)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self._pods(namespace)}") from error

    def programs(self) -> dict[str, Status]:
        """Return the status of the node's programs."""
        try:
            return msgspec.json.decode(
                self._layout.status_file.read_bytes(), type=dict[str, Status]
            )
        except FileNotFoundError:
            return {}

    def diagnosis(self, before: dict[str, int]) -> str:
        """Describe the node's programs that do not run, with the ends of their logs."""
        lines = []
        for name, one in self.programs().items():
            ended = one.exits - before.get(name, 0)
            if one.pid and not ended:
                continue
            state = f"ended {ended} times, last with {one.last_exit}" if ended else "does not run"
            file = self._layout.logs / f"{name}.log"
            text = file.read_text(errors="replace") if file.exists() else ""
            lines.append(f"  {name} {state}; {file} ends with:\n{last_lines(text)}")
        held = [path.name for path in self._layout.hold.iterdir()]
        if held:
            lines.append(f"  held by files in {self._layout.hold}: {', '.join(held)}: remove them")
        return (
            "\n".join(lines) or f"  all programs of the node run; logs are in {self._layout.logs}"
        )

    def _pods(self, namespace: str) -> str:
        """Describe the pods of a namespace and their warnings."""
        try:
            pods = self.kubectl("get", "pods", "--namespace", namespace, "--output", "wide")
            events = self.kubectl(
                "get", "events", "--namespace", namespace, "--field-selector=type=Warning"
            )
        except ClusterError as error:
            return f"  its pods cannot be listed: {error}"
        return f"  its pods:\n{last_lines(pods)}\n  warnings:\n{last_lines(events)}"
