"""The metrics that a running system tells, by name."""

import http.client
import urllib.request
from pathlib import Path

import psutil
from system import running


def told_metrics(home: Path) -> set[str]:
    """Return the names of all metrics that any process of the system in ``home`` has."""
    ports = {
        connection.laddr.port
        for pid in running(home)
        for connection in psutil.Process(pid).connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    lines = [line for port in ports for line in _page(port).splitlines()]
    return {line.split()[2] for line in lines if line.startswith("# TYPE ")}


def _page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode(errors="replace")
            return text
    except (OSError, http.client.HTTPException):  # not everything that listens has metrics
        return ""
