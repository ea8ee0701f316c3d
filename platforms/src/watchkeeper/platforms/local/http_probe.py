"""Short HTTP requests to processes of this machine. Each uses a connection of its own."""

import http.client
import socket
from pathlib import Path

from watchkeeper.platforms.local.ports import HOST


class SocketConnection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket.

        Raises:
            OSError: No process listens.
        """
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.close()
            raise


def get(address: int | Path, path: str, timeout: float) -> tuple[int, bytes]:
    """Send a GET request.

    Args:
        address: A port on the loopback interface, or the path of a Unix socket.
        path: The path of the request.
        timeout: Limit in seconds for each wait.

    Returns:
        The status code and the body.

    Raises:
        OSError: There is no answer.
    """
    connection = (
        SocketConnection(address, timeout)
        if isinstance(address, Path)
        else http.client.HTTPConnection(HOST, address, timeout=timeout)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{address}: {error!r}") from error
    finally:
        connection.close()
