"""Ports on the loopback interface: choose free ones, find out who uses a port.

Another program may take a port between the time when we choose it and the time when our server
listens on it. So an answer on a port counts as ours only if one of our processes listens there.
"""

import secrets
import socket
from collections.abc import Container
from typing import Any

import psutil

from watchkeeper.platforms.interface import PlatformError

HOST = "127.0.0.1"
# Below the ranges from which Linux and macOS choose the ports of outgoing connections. Otherwise
# such a connection could use a server's port while the server restarts.
RANGE = range(20000, 30000)


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: closed connections that the kernel still remembers do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))  # without listen(), so that no client can connect to it
        except OSError:
            return False
    return True


def ports_of(pid: int) -> set[int]:
    """Return the ports on which a process or its descendants listen; none if it has ended."""
    found: set[int] = set()
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            found |= {
                connection.laddr.port
                for connection in _tcp_connections(each)
                if connection.status == psutil.CONN_LISTEN
            }
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return found
    return found


def is_taken_by_other(port: int, pid: int) -> bool:
    """Return whether a process other than ``pid`` and its descendants uses ``port``.

    ``pid`` is 0 for a process that does not run.
    """
    return not is_free(port) and not (pid and port in ports_of(pid))


def free_port(preferred: int | None = None, taken: Container[int] = ()) -> int:
    """Return ``preferred`` if it is free, or else any free port that is not in ``taken``.

    Raises:
        PlatformError: No port is free.
    """
    # Start at a random port, so that systems that start at the same time choose different ones.
    start = secrets.randbelow(len(RANGE))
    candidates: list[int] = [*RANGE[start:], *RANGE[:start]]
    if preferred is not None:
        candidates.insert(0, preferred)
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise PlatformError(f"no free port on {HOST} from {RANGE.start} to {RANGE.stop - 1}")


def _tcp_connections(process: psutil.Process) -> Any:
    # psutil 6 has renamed connections() to net_connections().
    name = "net_connections" if hasattr(process, "net_connections") else "connections"
    return getattr(process, name)("tcp")
