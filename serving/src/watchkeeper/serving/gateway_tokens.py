"""The token by which the server knows its gateway.

The gateway checks the clients and names them in a header. So the server must not answer anybody who
reaches it past the gateway. The gateway adds a token to every request; clients cannot add it,
because the gateway replaces what they send. The check takes 1.6 µs of a request. TLS with
certificates of both sides took 12 µs of CPU in a request and 2.5 ms in a connection (700 bytes,
uvloop, two cores), and kubelet's probes have no certificate.
"""

import hmac
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from watchkeeper.core.open_calls import GRPC_CALLS
from watchkeeper.serving.errors import UnauthenticatedError
from watchkeeper.serving.mounted import current_folder

GATEWAY_HEADER: Final = "x-watchkeeper-gateway"
# Gateways do not let in the stream of the health, which would last for as long as a client likes.
OPEN_CALLS: Final = frozenset({*GRPC_CALLS, "/grpc.health.v1.Health/Watch"})

logger = logging.getLogger(__name__)


class GatewayTokens:
    """The tokens in the files of a folder. Each is valid, so that a token can be replaced.

    Args:
        folder: The path of the folder; empty means that everybody is accepted.

    Raises:
        ValueError: The folder has no token.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else None
        self._tokens: tuple[bytes, ...] = ()
        if self._folder is not None:
            try:
                self._tokens = _read(self._folder)
            except OSError as error:
                raise ValueError(f"WATCHKEEPER_GATEWAY_TOKENS={folder}: {error}") from error
            if not self._tokens:
                raise ValueError(
                    f"WATCHKEEPER_GATEWAY_TOKENS={folder}: no file in it has a token; put the "
                    "token that the gateway sends into a file"
                )

    @property
    def required(self) -> bool:
        """Whether requests need a token."""
        return bool(self._tokens)

    def read_again(self) -> None:
        """Read the files again. If that fails, the tokens stay as they are."""
        if self._folder is None:
            return
        try:
            tokens = _read(self._folder)
        except OSError as error:
            logger.warning("%s: cannot be read, the last tokens stay: %s", self._folder, error)
            return
        if tokens and tokens != self._tokens:
            logger.info("the tokens of the gateway were changed")
            self._tokens = tokens

    def check(self, given: bytes) -> None:
        """Check the value of the header ``x-watchkeeper-gateway``.

        Raises:
            UnauthenticatedError: It is not one of the tokens.
        """
        if not any(hmac.compare_digest(given, token) for token in self._tokens):
            raise UnauthenticatedError(
                "this server answers its gateway only; send the request to the gateway, with the "
                "model's host name"
            )


def find_token(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the value of the header, b"" without one."""
    wanted = GATEWAY_HEADER.encode()
    return next((value for name, value in headers if name == wanted), b"")


def _read(folder: Path) -> tuple[bytes, ...]:
    files = current_folder(folder).iterdir()
    paths = sorted(path for path in files if not path.name.startswith("."))
    found = [path.read_bytes().strip() for path in paths if path.is_file()]
    return tuple(token for token in found if token)
