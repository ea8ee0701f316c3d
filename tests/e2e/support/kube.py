"""kubectl and helm as subprocesses, and waiting for a condition."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = Path(os.environ.get("WATCHKEEPER_CLUSTER") or ROOT / ".cluster").resolve()
PROGRAMS = f"{CLUSTER / 'bin'}:{os.environ['PATH']}"
KUBECONFIG = os.environ.get("KUBECONFIG") or str(CLUSTER / "kubeconfig")
ENVIRONMENT = {**os.environ, "KUBECONFIG": KUBECONFIG, "PATH": PROGRAMS}
# True if the cluster is that of `make cluster`, whose node is this machine.
OWN_CLUSTER = (CLUSTER / "hold").is_dir() and Path(KUBECONFIG).resolve() == CLUSTER / "kubeconfig"
POLL_SECONDS = 0.5


class CommandError(Exception):
    """A command failed. The message contains its error output."""


def run_command(*words: str, given: str | None = None, seconds: float = 60.0) -> str:
    """Run a command and return its standard output.

    Args:
        words: the command; programs of `make cluster` have precedence over the PATH.
        given: its standard input.
        seconds: its time limit.

    Raises:
        CommandError: the command is missing, fails, or exceeds the limit.
    """
    program = shutil.which(words[0], path=PROGRAMS)
    if program is None:
        raise CommandError(f"{words[0]} is not on the PATH; `make cluster` builds it")
    try:
        done = subprocess.run(
            [program, *words[1:]],
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(words)}: not finished after {seconds:.0f} s") from error
    if done.returncode:
        raise CommandError(f"{' '.join(words)}: {done.stderr.strip()[-3000:]}")
    return done.stdout


def kubectl(*words: str, given: str | None = None, seconds: float = 60.0) -> str:
    """Run kubectl. Its requests have a time-out, because scenarios stop the API server."""
    return run_command("kubectl", "--request-timeout=30s", *words, given=given, seconds=seconds)


def helm(*words: str, seconds: float = 600.0) -> str:
    """Run helm."""
    return run_command("helm", *words, seconds=seconds)


def get(*words: str) -> Json:
    """Return an object or a List, or an empty dict if the object does not exist."""
    text = kubectl("get", *words, "--ignore-not-found", "--output=json")
    found: Json = json.loads(text) if text.strip() else {}
    return found


def items(*words: str) -> list[Json]:
    """Return the objects that ``kubectl get`` lists."""
    found: list[Json] = get(*words).get("items", [])
    return found


def apply(*objects: Json) -> None:
    """Create or change objects by server-side apply."""
    many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "--server-side", "--filename=-", given=json.dumps(many))


def read_secret(namespace: str, name: str, key: str) -> str:
    """Return a value of a Secret, or an empty text if it does not exist."""
    data = get("secret", name, f"--namespace={namespace}").get("data", {})
    return base64.b64decode(data.get(key, "")).decode()


def secret(namespace: str, name: str, values: dict[str, str]) -> Json:
    """Return a Secret for ``apply``."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def wait_until(what: str, condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait until ``condition`` returns a true value, and return that value.

    A command that fails and a database that does not answer count as not yet true.

    Args:
        what: the condition in words, for the message of a failure.
        condition: called every half second.
        seconds: the time limit.

    Raises:
        AssertionError: the condition is not true within the limit.
    """
    deadline = time.monotonic() + seconds
    while True:
        reason = ""
        try:
            if found := condition():
                return found
        except (CommandError, SQLAlchemyError, OSError) as error:
            reason = f"; {error}"
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}{reason}"
        time.sleep(POLL_SECONDS)
