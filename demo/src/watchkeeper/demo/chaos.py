"""Kill -9 of every kind of process, each once, at the moment when it matters most."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

from watchkeeper.demo.display import Display
from watchkeeper.demo.system import UnavailableError

POLL_SECONDS: Final = 0.5
PATIENCE: Final = 90.0  # seconds more for a stage in which things die

Status = Callable[[], Awaitable[Any]]


class Chaos:
    """Kills by name, with pids from ``watchkeeper status``; does nothing unless ``enabled``."""

    def __init__(self, status: Status, display: Display, *, enabled: bool) -> None:
        self.enabled = enabled
        self.killed: list[str] = []
        self._status = status
        self._display = display

    @property
    def patience(self) -> float:
        """How many seconds longer a stage may take."""
        return PATIENCE if self.enabled else 0.0

    async def kill(self, beginning: str) -> None:
        """Kill the process whose name begins so.

        Raises:
            UnavailableError: no such process runs.
        """
        if not self.enabled:
            return
        processes = (await self._status())["processes"]
        found = [p for p in processes if p["name"].startswith(beginning) and p["pid"]]
        if not found:
            names = ", ".join(p["name"] for p in processes)
            raise UnavailableError(f"no process {beginning}* to kill; there is {names}")
        os.kill(found[0]["pid"], signal.SIGKILL)
        self.killed.append(found[0]["name"])
        self._display.tell(f"killed -9 {found[0]['name']}", style="yellow")

    async def during_rollout(self, model: str, stable: int, canary: int) -> None:
        """Kill the controller at the first step, the canary at the second, stable at the third."""
        if not self.enabled:
            return
        for weight, beginning in (
            (10, "rollout"),
            (25, f"server.{model}-v{canary}"),
            (50, f"server.{model}-v{stable}"),
        ):
            await self._serving(model, canary, weight)
            await self.kill(beginning)

    async def _serving(self, name: str, canary: int, weight: int) -> None:
        """Wait until the canary is ready and has at least that weight, confirmed."""
        while True:
            model = next(m for m in (await self._status())["models"] if m["name"] == name)
            ready = any(s["version"] == canary and s["state"] == "ready" for s in model["serving"])
            if ready and model["confirmed"] and model["weights"].get(str(canary), 0) >= weight:
                return
            await asyncio.sleep(POLL_SECONDS)
