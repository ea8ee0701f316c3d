"""PostgreSQL connections with a time limit: psycopg itself waits for a frozen server for ever."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")
POLL_SECONDS = 0.1  # how often the driver checks the time while it waits


def connection_with_timeout(seconds: float) -> type[psycopg.Connection[Any]]:
    """Return a class of connections whose exchanges with the server end within ``seconds``.

    An exchange that takes longer closes the connection and raises ``psycopg.OperationalError``.
    """

    class ConnectionWithTimeout(psycopg.Connection[Any]):
        def wait(
            self,
            gen: Generator[Any, Any, T],
            interval: float = POLL_SECONDS,
            timeout: float | None = None,
        ) -> T:
            return super().wait(_limited(self, gen, time.monotonic() + seconds), interval, timeout)

    return ConnectionWithTimeout


def _limited(
    connection: psycopg.Connection[Any], exchange: Generator[Any, Any, T], deadline: float
) -> Generator[Any, Any, T]:
    """Run an exchange until the deadline.

    The driver resumes the generator when the socket is ready, and at every poll.
    """
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                connection.pgconn.finish()  # half an answer makes the connection unusable
                raise psycopg.OperationalError(
                    "the server did not answer in time; the connection is closed"
                )
            wanted = exchange.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
