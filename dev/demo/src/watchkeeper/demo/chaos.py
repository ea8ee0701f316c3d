"""Kill every kind of process once with SIGKILL, at the moments that matter most."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

from watchkeeper.demo.display import Display
from watchkeeper.demo.system import SystemUnavailableError

POLL_SECONDS: Final = 0.5

ReadStatus = Callable[[], Awaitable[Any]]


class Chaos:
    """Kills processes by name, with pids from ``watchkeeper status``.

    Does nothing unless ``enabled``. ``killed`` are the names of the killed processes.
    """

    def __init__(self, read_status: ReadStatus, display: Display, *, enabled: bool) -> None:
        self.enabled = enabled
        self.killed: list[str] = []
        self._read_status = read_status
        self._display = display

    async def kill(self, prefix: str) -> None:
        """Kill the first process whose name starts with ``prefix``.

        Raises:
            SystemUnavailableError: no such process runs.
        """
        if not self.enabled:
            return
        processes = (await self._read_status())["processes"]
        found = [p for p in processes if p["name"].startswith(prefix) and p["pid"]]
        if not found:
            names = ", ".join(p["name"] for p in processes)
            raise SystemUnavailableError(f"no process {prefix}* runs; the processes are {names}")
        os.kill(found[0]["pid"], signal.SIGKILL)
        self.killed.append(found[0]["name"])
        self._display.log(f"killed -9 {found[0]['name']}", style="yellow")

    async def during_rollout(self, model: str, stable: int, canary: int) -> None:
        """Kill the controller at the first step, the canary at the second, stable at the third."""
        if not self.enabled:
            return
        for weight, prefix in (
            (10, "rollout"),
            (25, f"server.{model}-v{canary}"),
            (50, f"server.{model}-v{stable}"),
        ):
            await self._wait_for_weight(model, canary, weight)
            await self.kill(prefix)

    async def _wait_for_weight(self, name: str, canary: int, weight: int) -> None:
        """Wait until the canary is ready and has at least this weight, confirmed."""
        while True:
            model = next(m for m in (await self._read_status())["models"] if m["name"] == name)
            ready = any(s["version"] == canary and s["state"] == "ready" for s in model["serving"])
            if ready and model["confirmed"] and model["weights"].get(str(canary), 0) >= weight:
                return
            await asyncio.sleep(POLL_SECONDS)
