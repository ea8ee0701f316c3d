"""The names of the metrics that a running system exports."""

import http.client
import urllib.request
from pathlib import Path

import psutil
from system import processes_of


def exported_metrics(home: Path) -> set[str]:
    """Return the names of all metrics of all processes of the system in ``home``."""
    ports = {
        connection.laddr.port
        for pid in processes_of(home)
        for connection in psutil.Process(pid).connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    lines = [line for port in ports for line in _metrics_page(port).splitlines()]
    return {line.split()[2] for line in lines if line.startswith("# TYPE ")}


def _metrics_page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            text: str = response.read().decode(errors="replace")
            return text
    except (OSError, http.client.HTTPException):  # not every port has metrics
        return ""
