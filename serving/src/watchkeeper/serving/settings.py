"""The settings of a serving process, from the environment."""

from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.contracts.names import check_model_name

MEBIBYTE = 1024 * 1024


class ServingSettings(msgspec.Struct, frozen=True):
    """What the process serves, where its files are and where it listens.

    ``body_bytes`` limits one request, ``spool_bytes`` all records that are not shipped yet.
    ``queue_seconds`` is how long requests may queue when there is more than can be answered; the
    rest is turned away. Beyond ``connections`` only health is answered.
    After SIGTERM the process says for ``drain_seconds`` that it is not ready, while it still
    answers everything, and then takes up to ``stop_seconds`` to finish what it has accepted.
    ``answer_policy`` replaces single values of the version's own policy.
    """

    model: str
    version: int
    model_folder: Path
    spool: Path
    signing_key: str
    feedback_token: str
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 9000
    metrics_port: int = 8082
    spool_bytes: int = 200 * MEBIBYTE
    body_bytes: int = 4 * MEBIBYTE
    body_seconds: float = 10.0
    queue_seconds: float = 0.01
    connections: int = 4096
    drain_seconds: float = 2.0
    stop_seconds: float = 10.0
    answer_policy: dict[str, Any] = {}

    def __post_init__(self) -> None:
        check_model_name(self.model)
        for name in ("version", "spool_bytes", "body_bytes", "connections"):
            if getattr(self, name) < 1:
                raise ValueError(f"WATCHKEEPER_{name.upper()} must be at least 1")
        if not self.queue_seconds > 0:
            raise ValueError("WATCHKEEPER_QUEUE_SECONDS must be more than 0")
        for name in ("signing_key", "feedback_token"):
            if not getattr(self, name):
                raise ValueError(f"WATCHKEEPER_{name.upper()} is empty; give it a secret")
