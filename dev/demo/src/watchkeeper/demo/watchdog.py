"""Stopping what makes no progress, however slow the machine is.

A deadline fails on a busy machine although everything works. A watchdog looks at readings of what
counts as progress, such as the number of events or the size of a log. It stops the work when the
reading stays the same for a while. A generous limit stops work that goes on for ever.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from watchkeeper.demo.plants import DatabaseError

IDLE_SECONDS: Final = 300.0
LIMIT_SECONDS: Final = 1800.0
POLL_SECONDS: Final = 1.0


class StalledError(RuntimeError):
    """Nothing has progressed for too long, or the work has taken too long altogether."""


class Watchdog:
    """Compares readings of progress.

    Args:
        idle_seconds: how long the reading may stay the same.
        limit_seconds: how long the work may take altogether.
        clock: a monotonic clock, in seconds.

    Example::

        watchdog = Watchdog(idle_seconds=60)
        while not done():
            watchdog.observe((count_events(), log_size()))
    """

    def __init__(
        self,
        *,
        idle_seconds: float = IDLE_SECONDS,
        limit_seconds: float = LIMIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle = idle_seconds
        self._limit = limit_seconds
        self._clock = clock
        self._start = self._changed = clock()
        self._reading: object = None

    def observe(self, reading: object) -> None:
        """Take a reading: any value that is equal to the last one if nothing has progressed.

        Raises:
            StalledError: the reading is unchanged for ``idle_seconds``, or ``limit_seconds`` are
                over.
        """
        now = self._clock()
        if reading != self._reading:
            self._reading, self._changed = reading, now
        if now - self._changed >= self._idle:
            raise StalledError(f"no progress for {now - self._changed:.0f} s")
        if now - self._start >= self._limit:
            raise StalledError(f"not finished after {now - self._start:.0f} s")


@contextlib.asynccontextmanager
async def stop_if_stalled(
    watchdog: Watchdog, read: Callable[[], Awaitable[object]], *, poll_seconds: float = POLL_SECONDS
) -> AsyncIterator[None]:
    """Cancel the body of a ``with`` block when its watchdog raises or cannot work.

    A reading that fails, because a database or a file is away, counts as no progress. Any other
    error of a reading cancels the body too: nothing would limit the body without readings.

    Raises:
        StalledError: the body was cancelled because nothing has progressed.
        Exception: the body was cancelled because ``read`` has raised this error.
    """
    failures: list[Exception] = []

    async def watch(body: asyncio.Timeout) -> None:
        reading: object = None
        while True:
            try:
                with contextlib.suppress(DatabaseError, OSError):
                    reading = await read()
                watchdog.observe(reading)
            except Exception as error:  # noqa: BLE001 - raised again below
                failures.append(error)
                body.reschedule(asyncio.get_running_loop().time())
                return
            await asyncio.sleep(poll_seconds)

    try:
        async with asyncio.timeout(None) as body:
            watching = asyncio.create_task(watch(body))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
    except TimeoutError:
        if not failures:
            raise
        raise failures[0] from failures[0].__cause__
