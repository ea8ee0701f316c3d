"""images/on-change: a program gets a signal when the files of a folder have changed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

SCRIPT: Final = Path(__file__).parents[1] / "images/on-change"
# It writes the signals that it gets, and ends at SIGTERM and SIGINT.
PROGRAM: Final = """
import signal, sys, time
def note(number, _frame):
    print(signal.Signals(number).name, flush=True)
    if number != signal.SIGHUP:
        sys.exit(number)
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, note)
print("started", flush=True)
while True:
    time.sleep(0.1)
"""
NOTICED_SECONDS: Final = 30.0


class Running:
    """The script with its program."""

    def __init__(self, folder: Path, given: str, program: str = PROGRAM) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        self.put("first")
        self._output = folder / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [SCRIPT, given, self.files, "python3", "-c", program],
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def put(self, content: str) -> None:
        """Replace the files, as kubelet does: all of them at once, by a link."""
        new = self.files / f"..{content}"
        new.mkdir()
        (new / "tls.crt").write_text(content)
        link = self.files / "..new"
        link.symlink_to(new.name)
        link.replace(self.files / "..data")
        if not (self.files / "tls.crt").is_symlink():
            (self.files / "tls.crt").symlink_to("..data/tls.crt")

    def said(self) -> list[str]:
        return self._output.read_text().split()

    def wait_for(self, *words: str) -> None:
        deadline = time.monotonic() + NOTICED_SECONDS
        while self.said() != [*words]:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Let programs get SIGINT: a shell starts what is in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path, "HUP")
    made.wait_for("started")
    yield made
    if made.process.poll() is None:
        os.killpg(made.process.pid, signal.SIGKILL)
    made.process.wait(timeout=10)


def test_the_program_gets_the_signal_once_for_each_change(running: Running) -> None:
    running.put("second")
    running.wait_for("started", "SIGHUP")
    running.put("third")
    running.wait_for("started", "SIGHUP", "SIGHUP")


def test_a_missing_file_is_no_change(running: Running) -> None:
    (running.files / "tls.crt").unlink()
    time.sleep(11.0)
    assert running.said() == ["started"]
    assert running.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_script_reaches_the_program_at_once(
    running: Running, number: signal.Signals
) -> None:
    running.process.send_signal(number)
    assert running.process.wait(timeout=5) == number
    assert running.said() == ["started", number.name]


def test_the_exit_code_is_that_of_the_program(tmp_path: Path) -> None:
    assert Running(tmp_path, "HUP", "raise SystemExit(7)").process.wait(timeout=5) == 7
