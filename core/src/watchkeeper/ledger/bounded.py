"""PostgreSQL connections that never wait for ever: the driver has no such time-out of its own."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")
LOOK_SECONDS = 0.1  # how often the driver looks up from its waiting


def bounded_connection(seconds: float) -> type[psycopg.Connection[Any]]:
    """Make the class of connections whose every exchange with the server ends in ``seconds``."""

    class Bounded(psycopg.Connection[Any]):
        def wait(
            self,
            gen: Generator[Any, Any, T],
            interval: float = LOOK_SECONDS,
            timeout: float | None = None,
        ) -> T:
            return super().wait(_until(self, gen, time.monotonic() + seconds), interval, timeout)

    return Bounded


def _until(
    connection: psycopg.Connection[Any], exchange: Generator[Any, Any, T], deadline: float
) -> Generator[Any, Any, T]:
    """Pass an exchange on; the driver resumes it when it is ready, and at every look."""
    try:
        wanted = next(exchange)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                connection.pgconn.finish()  # in the middle of an answer it is of no more use
                raise psycopg.OperationalError("the server does not answer, connection closed")
            wanted = exchange.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
