"""Run other programs. An error contains the last lines of their output."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from watchkeeper.cluster.layout import ClusterError

LAST_LINES = 15
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def run(
    argv: Sequence[str | Path],
    *,
    seconds: float = 60,
    given: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Run ``argv`` with the text ``given`` as its input; return its standard output.

    Raises:
        ClusterError: the program failed, is missing, or took longer than ``seconds``; the message
            contains its last lines.
    """
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=folder,
            env=own_environment() | dict(environment or {}),
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is missing: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{short(command)} did not end within {seconds:.0f} s") from error
    if done.returncode != 0:
        output = last_lines(done.stderr or done.stdout)
        raise ClusterError(f"{short(command)} failed ({done.returncode}):\n{output}")
    return done.stdout


def own_environment() -> dict[str, str]:
    """Return this process's environment without proxies, because the cluster is on this machine."""
    return {key: value for key, value in os.environ.items() if key.lower() not in PROXIES}


def last_lines(text: str, count: int = LAST_LINES) -> str:
    """Return the last ``count`` lines of ``text``, each cut to 500 characters."""
    return "\n".join(f"    {line[:500]}" for line in text.strip().splitlines()[-count:])


def short(command: Sequence[str]) -> str:
    """Return the first 160 characters of a command line, for a message."""
    text = " ".join([Path(command[0]).name, *command[1:]])
    return text if len(text) < 160 else f"{text[:160]}…"
