"""Ports on the loopback interface: which are free, and who has the others.

Between the choice of a port and the moment its server listens anybody else may take it. So what
answers there is ours only if a process of ours listens.
"""

import secrets
import socket
from collections.abc import Container

import psutil

from watchkeeper.platforms.interface import PlatformError

HOST = "127.0.0.1"
# Below the ranges from which Linux and macOS take the ports of outgoing connections: one of
# those could otherwise sit on a port while its server restarts.
RANGE = range(20000, 30000)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the past that linger must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))  # and never listens: nobody's server shall meet the probe
        except OSError:
            return False
    return True


def ports_of(pid: int) -> set[int]:
    """Return the ports on which a process or one that it started listens; none once it ended."""
    found: set[int] = set()
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            found |= {
                connection.laddr.port
                for connection in each.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return found
    return found


def is_lost(port: int, pid: int) -> bool:
    """Tell whether somebody else listens on a port that was meant for the process ``pid``.

    A process that does not live has the pid 0.
    """
    return not is_free(port) and not (pid and port in ports_of(pid))


def free_port(preferred: int | None = None, taken: Container[int] = ()) -> int:
    """Return ``preferred`` if it is free, else any free port that is not ``taken``.

    Raises:
        PlatformError: no port is free.
    """
    # From a random place, so that systems that start at the same time do not all pick the same.
    start = secrets.randbelow(len(RANGE))
    candidates: list[int] = [*RANGE[start:], *RANGE[:start]]
    if preferred is not None:
        candidates.insert(0, preferred)
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise PlatformError(f"no free port on {HOST} from {RANGE.start} to {RANGE.stop - 1}")
