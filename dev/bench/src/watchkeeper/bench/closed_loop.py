"""A closed loop of requests: h2load, which is written in C and supports HTTP/1.1 and HTTP/2."""

import re
import shutil
import subprocess

from watchkeeper.bench.cases import Case
from watchkeeper.bench.servers import LOAD_CORE, Server

CONNECTIONS = 8
_TIMEOUT = 120
_DONE = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded")


def missing_tool() -> str | None:
    """Return a message about a tool that is not installed, or None."""
    for tool, package in (("h2load", "nghttp2-client"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install {package}"
    return None


def requests_per_second(server: Server, case: Case, seconds: float) -> float:
    """Send requests without a pause over 8 connections, and return the rate of answers.

    Raises:
        RuntimeError: An answer is an error, or no answer came in time.
    """
    # This warms up. With h2load's own warm-up, its count is sometimes zero.
    _run(server, case, ["-n", str(CONNECTIONS * 2)])
    while seconds < _TIMEOUT / 2:
        if answered := _run(server, case, ["-D", f"{seconds * 1000:.0f}ms"]):
            return answered / seconds
        seconds *= 2  # the machine is so busy that no answer came in time
    raise RuntimeError(f"{case.file.name}: no answer came within {seconds / 2:g} seconds")


def _run(server: Server, case: Case, extent: list[str]) -> int:
    url = server.url if case.protocol == "http" else server.grpc_url
    command = ["taskset", "-c", LOAD_CORE, "h2load", "-t1", f"-c{CONNECTIONS}", "-m1", *extent]
    command += ["-d", str(case.file), *(f"-H{n}: {value}" for n, value in case.headers.items())]
    command += ["--h1"] if case.protocol == "http" else []
    done = subprocess.run(
        [*command, f"{url}{case.path}"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=True,
    )
    counts = _DONE.search(done.stdout)
    if counts is None or counts[2] != counts[3]:
        raise RuntimeError(f"{case.file.name}: some answers are errors: {done.stdout}")
    return int(counts[3])
