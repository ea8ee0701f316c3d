"""Short HTTP calls to our own processes: one connection each, for they come and go."""

import http.client
import socket
from pathlib import Path

from watchkeeper.platforms.local.ports import HOST


class SocketConnection(http.client.HTTPConnection):
    """A connection to a server that listens on a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect, or raise OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.close()
            raise


def get(place: int | Path, path: str, timeout: float) -> tuple[int, bytes]:
    """Ask a port or a socket; return status and body.

    Raises:
        OSError: nobody answers.
    """
    connection = (
        SocketConnection(place, timeout)
        if isinstance(place, Path)
        else http.client.HTTPConnection(HOST, place, timeout=timeout)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{place}: {error!r}") from error
    finally:
        connection.close()
