"""The log of a component."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

PROGRAM = """
import logging, sys
import httpx
from watchkeeper.core.logs import configure_logging

if "quiet" in sys.argv:
    configure_logging()
else:
    logging.basicConfig(level=logging.INFO)
with httpx.Client() as client:
    client.get(sys.argv[1])
logging.getLogger("watchkeeper.some").info("a step")
logging.getLogger("httpx").warning("odd")
"""


class EmptyAnswers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), EmptyAnswers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def log_of(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True, text=True
    )
    return done.stderr


def test_calls_of_http_libraries_are_not_logged_and_everything_else_is(url: str) -> None:
    logged = log_of(url, "quiet").splitlines()
    assert [line.split(" ", 2)[2] for line in logged] == [
        "INFO watchkeeper.some: a step",
        "WARNING httpx: odd",
    ]
    assert url in log_of(url), "httpx logs its calls by default"
