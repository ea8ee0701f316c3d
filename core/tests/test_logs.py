"""What stands in the log of a component."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

ASKS = """
import logging, sys
import httpx2
from watchkeeper.contracts.logs import set_up_log

if "quiet" in sys.argv:
    set_up_log()
else:
    logging.basicConfig(level=logging.INFO)
with httpx2.Client() as client:
    client.get(sys.argv[1])
logging.getLogger("watchkeeper.some").info("a step")
logging.getLogger("httpx2").warning("odd")
"""


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def log_of(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASKS, *arguments], check=True, capture_output=True, text=True
    )
    return done.stderr


def test_the_calls_of_a_client_are_not_told_and_everything_else_is(url: str) -> None:
    told = log_of(url, "quiet").splitlines()
    assert [line.split(" ", 2)[2] for line in told] == [
        "INFO watchkeeper.some: a step",
        "WARNING httpx2: odd",
    ]
    assert url in log_of(url), "it would tell its calls"
