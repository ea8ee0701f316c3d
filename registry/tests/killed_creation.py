"""The creation of a version that is killed at a call of the MLflow client, in its own process."""

import os
import signal
from typing import Any

from mlflow.tracking import MlflowClient

from watchkeeper.registry import Registry


def create(uri: str, model: str, files: tuple[str, str], value: str, above: int) -> int:
    """Create a version that the tag ``test.once`` identifies; return its number.

    ``files`` are the address of its files and the id of their run.
    """
    tags = {"test.once": value}
    made = Registry(uri).create_version(model, *files, tags=tags, once="test.once", above=above)
    return made.version


def create_killed(call: str, when: str, count: int, *arguments: Any) -> None:
    """Like :func:`create`; the process is killed before or after the call number ``count``."""
    original, calls = getattr(MlflowClient, call), 0

    def killed(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*given, **more)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(MlflowClient, call, killed)
    create(*arguments)
