"""A registration that is killed at a call of the MLflow client; runs in its own process."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from watchkeeper.ledger import Ledger
from watchkeeper.registry import Registry
from watchkeeper.training.register import finish, register


def registered(
    uri: str, ledger: str, folder: Path, call: str | None = None, when: str = ""
) -> None:
    """Register and finish; with ``call``, the process is killed before or after that call."""
    if call is not None:
        setattr(MlflowClient, call, _killing(getattr(MlflowClient, call), when))
    registry = Registry(uri)
    opened = Ledger(ledger)
    finish(registry, opened, register(registry, opened, folder, {"trees": 3}), folder)
    opened.close()


def _killing(original: Callable[..., Any], when: str) -> Callable[..., Any]:
    def killed(*arguments: Any, **more: Any) -> Any:
        if when == "after":
            original(*arguments, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    return killed
