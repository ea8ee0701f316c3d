"""kubectl and helm as a person uses them, and waiting for what they tell."""

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
# Whether kubectl goes to the cluster of `make cluster`, whose node is on this machine.
OURS = (CLUSTER / "hold").is_dir() and Path(KUBECONFIG).resolve() == CLUSTER / "kubeconfig"
LOOK_SECONDS = 0.5


class CommandError(Exception):
    """A command failed; the message is what it said."""


def ask(*words: str, given: str | None = None, seconds: float = 60.0) -> str:
    """Run a command and return what it prints."""
    program = shutil.which(words[0], path=PROGRAMS)
    if program is None:
        raise CommandError(f"there is no {words[0]}: make cluster, or put it on the PATH")
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
        raise CommandError(f"{' '.join(words)}: no end in {seconds:.0f} s") from error
    if done.returncode:
        raise CommandError(f"{' '.join(words)}: {done.stderr.strip()[-3000:]}")
    return done.stdout


def kubectl(*words: str, given: str | None = None, seconds: float = 60.0) -> str:
    """Run kubectl; no call hangs for longer than the API server may be away."""
    return ask("kubectl", "--request-timeout=30s", *words, given=given, seconds=seconds)


def helm(*words: str, seconds: float = 600.0) -> str:
    return ask("helm", *words, seconds=seconds)


def get(*words: str) -> Json:
    """Return an object, or a List of them; an empty one where there is none."""
    text = kubectl("get", *words, "--ignore-not-found", "--output=json")
    found: Json = json.loads(text) if text.strip() else {}
    return found


def items(*words: str) -> list[Json]:
    """Return the objects that ``kubectl get`` lists."""
    found: list[Json] = get(*words).get("items", [])
    return found


def apply(*objects: Json) -> None:
    many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "--server-side", "--filename=-", given=json.dumps(many))


def secret(namespace: str, name: str, key: str) -> str:
    """Return a value of a Secret, nothing where there is none."""
    data = get("secret", name, f"--namespace={namespace}").get("data", {})
    return base64.b64decode(data.get(key, "")).decode()


def secret_of(namespace: str, name: str, values: dict[str, str]) -> Json:
    """Return a Secret to be applied."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def until(what: str, condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait for what ``condition`` returns when it is neither None, False nor empty.

    A command that fails, or a database that does not answer, is the same as not yet.
    """
    deadline = time.monotonic() + seconds
    while True:
        why = ""
        try:
            if found := condition():
                return found
        except (CommandError, SQLAlchemyError, OSError) as error:
            why = f"; {error}"
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}{why}"
        time.sleep(LOOK_SECONDS)
