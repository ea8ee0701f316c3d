"""Several models in one process: a model that hangs must not delay another."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from free_ports import free_port
from simulated import MODEL, Simulation, first_version
from waiting import wait_for

from watchkeeper.ledger import migrate
from watchkeeper.platforms.local.home import Home, LocalConfig, Ports, write_struct
from watchkeeper.rollout import loop
from watchkeeper.rollout.actions import Action, Wait
from watchkeeper.rollout.metrics import Health


class Model:
    """A controller whose turns are those of a simulation."""

    def __init__(self, model: str, simulation: Simulation) -> None:
        self.name = model
        self.simulation = simulation
        self.turns = 0

    def turn(self) -> Action | None:
        self.turns += 1
        return self.simulation.turn()

    def end(self) -> None:
        """There is no lease."""


@pytest.mark.parametrize("call", ["serving", "serve", "set_route", "retire"])
def test_a_model_whose_turn_hangs_does_not_delay_the_rollback_of_another(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "END_SECONDS", 0.1)
    hangs, released = threading.Event(), threading.Event()
    slow, fast = Model("slow", first_version()), Model("fast", first_version())
    for model in (slow, fast):
        model.simulation.quality[2] = "failing"
        model.simulation.registry.register(2)
    real = getattr(slow.simulation.platform, call)

    def hang(*arguments: object) -> object:
        hangs.set()
        released.wait()
        return real(*arguments)

    setattr(slow.simulation.platform, call, hang)
    ended, health = threading.Event(), Health(["slow", "fast"], 60)
    left: list[str] = []
    running = threading.Thread(
        target=lambda: left.extend(loop.run([slow, fast], 0.001, health, ended))
    )
    running.start()
    try:
        wait_for(hangs.is_set)
        turns = slow.turns
        wait_for(lambda: "rolled-back" in [e.kind for e in fast.simulation.events.values()])
        wait_for(lambda: set(fast.simulation.platform.pods) == {1})
        assert slow.turns == turns, "it should still hang"
        ended.set()
        running.join(30)
        assert left == ["slow"]
    finally:
        ended.set()
        released.set()
        running.join(30)


def test_turns_in_progress_end_before_the_lease_is_released() -> None:
    begun, ended = threading.Event(), threading.Event()
    done: list[str] = []

    class Slow:
        name = MODEL

        def turn(self) -> Action | None:
            begun.set()
            ended.wait()
            done.append("turn")
            return Wait("", "")

        def end(self) -> None:
            done.append("end")

    stopper = threading.Thread(target=lambda: (begun.wait(), ended.set()), daemon=True)
    stopper.start()
    assert loop.run([Slow()], 60.0, Health([MODEL], 60), ended) == []
    assert done == ["turn", "end"]
    stopper.join()


@pytest.mark.parametrize("end", ["signal", "changed secret"])
def test_the_process_leads_all_models_and_ends_even_while_the_registry_hangs(
    tmp_path: Path, end: str
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    installation = LocalConfig(("pump", "press"), str(tmp_path), Ports(1, 2, 3, 4))
    write_struct(home.config_file, installation)
    migrate(f"sqlite:///{tmp_path}/ledger.db")
    secret = tmp_path / "ledger-url"
    secret.write_text(f"sqlite:///{tmp_path}/ledger.db")
    port, log = free_port(), tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as hanging, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "watchkeeper.rollout"],
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{hanging.getsockname()[1]}",
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "600",
                "WATCHKEEPER_MODELS": '["pump", "press"]',
                "WATCHKEEPER_LEDGER_URL_FILE": str(secret),
                "WATCHKEEPER_PLATFORM": f"local:{home.folder}",
                "WATCHKEEPER_PORT": str(port),
            },
            stdout=output,
            stderr=output,
        )
        try:
            leads = 'watchkeeper_rollout_leader{model="%s"} 1.0'
            wait_for(lambda: all(leads % m in _metrics(port) for m in ("pump", "press")))
            if end == "signal":
                process.send_signal(signal.SIGTERM)
            else:
                secret.write_text(f"sqlite:///{tmp_path}/other.db")
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    assert "pump: its turn did not end in time and is cut off" in log.read_text()


def _metrics(port: int) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
    except httpx.HTTPError:
        return ""
