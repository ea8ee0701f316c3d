"""The settings of a serving process, from environment variables ``WATCHKEEPER_*``."""

from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.core.names import check_model_name
from watchkeeper.serving.certificate import Certificate
from watchkeeper.serving.gateway_tokens import GatewayTokens

MEBIBYTE = 1024 * 1024


class ServingSettings(msgspec.Struct, frozen=True):
    """What the process serves, where its files are and where it listens.

    Attributes:
        model: Name of the model.
        version: Number of the version.
        model_folder: Folder of the version's files.
        spool: Folder of the spool.
        signing_key: Secret that signs prediction ids.
        feedback_token: Bearer token that clients need to send labels.
        gateway_tokens: Folder with the tokens that requests of the gateway have; without one, the
            server answers everybody who reaches it.
        certificate: Folder with ``tls.crt`` and ``tls.key``. With it, the server answers over TLS
            only; without TLS it answers health, over HTTP.
        host: Address to listen on.
        http_port, grpc_port, metrics_port: Ports to listen on.
        https_port, grpcs_port: Ports with TLS, if there is a certificate.
        spool_bytes: Limit for all records that are not shipped yet.
        body_bytes: Limit for the body of one request.
        body_seconds: How long a body may take to arrive.
        queue_seconds: How long requests may queue while more arrive than can be answered. The
            server refuses the others.
        connections: Limit for open connections. Further connections get only health answered.
        drain_seconds: How long the process reports that it is not ready after SIGTERM, while it
            still answers everything.
        stop_seconds: How long the process may take afterwards to finish accepted requests.
        synthetic_clients: Names of clients whose requests are synthetic, such as load tests.
        answer_policy: Replaces single values of the version's answer policy.
    """

    model: str
    version: int
    model_folder: Path
    spool: Path
    signing_key: str
    feedback_token: str
    gateway_tokens: str = ""
    certificate: str = ""
    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int = 9000
    metrics_port: int = 8082
    https_port: int = 8443
    grpcs_port: int = 9443
    spool_bytes: int = 200 * MEBIBYTE
    body_bytes: int = 4 * MEBIBYTE
    body_seconds: float = 10.0
    queue_seconds: float = 0.01
    connections: int = 4096
    drain_seconds: float = 2.0
    stop_seconds: float = 10.0
    synthetic_clients: tuple[str, ...] = ()
    answer_policy: dict[str, Any] = {}

    def __post_init__(self) -> None:
        check_model_name(self.model)
        for name in ("version", "spool_bytes", "body_bytes", "connections"):
            if getattr(self, name) < 1:
                raise ValueError(f"WATCHKEEPER_{name.upper()} must be at least 1")
        GatewayTokens(self.gateway_tokens)  # refuses a folder without a token
        if self.certificate:
            Certificate(self.certificate)  # refuses a folder without one
        if not self.queue_seconds > 0:
            raise ValueError("WATCHKEEPER_QUEUE_SECONDS must be more than 0")
        for name in ("signing_key", "feedback_token"):
            if not getattr(self, name):
                raise ValueError(f"WATCHKEEPER_{name.upper()} is empty; set it to a secret")
