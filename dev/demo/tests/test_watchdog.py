"""The watchdog stops what makes no progress, and nothing that is only slow."""

import asyncio
import itertools

import pytest
from sqlalchemy.exc import OperationalError

from watchkeeper.demo.watchdog import StalledError, Watchdog, stop_if_stalled


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog:
    return Watchdog(idle_seconds=60, limit_seconds=1000, clock=clock)


def test_slow_progress_is_not_stopped(clock: Clock, watchdog: Watchdog) -> None:
    for reading in range(16):
        clock.now = reading * 59.0
        watchdog.observe((reading, {"log": 7}))


def test_unchanged_reading_is_stopped_after_the_idle_time(clock: Clock, watchdog: Watchdog) -> None:
    watchdog.observe({"run.log": 10})
    clock.now = 50
    watchdog.observe({"run.log": 11})
    for clock.now in (60, 80, 109.9):
        watchdog.observe({"run.log": 11})
    clock.now = 110
    with pytest.raises(StalledError, match="no progress for 60 s"):
        watchdog.observe({"run.log": 11})


def test_work_without_any_reading_is_stopped(clock: Clock, watchdog: Watchdog) -> None:
    watchdog.observe(None)
    clock.now = 60
    with pytest.raises(StalledError, match="no progress"):
        watchdog.observe(None)


def test_progress_that_returns_to_an_earlier_reading_counts(
    clock: Clock, watchdog: Watchdog
) -> None:
    for number in range(10):
        clock.now = number * 50.0
        watchdog.observe(number % 2)


def test_work_that_goes_on_for_ever_is_stopped_at_the_limit(
    clock: Clock, watchdog: Watchdog
) -> None:
    for number in itertools.count():
        clock.now = number * 10.0
        if clock.now >= 1000:
            break
        watchdog.observe(number)
    with pytest.raises(StalledError, match="not finished after 1000 s"):
        watchdog.observe("new")


def test_stalled_body_is_cancelled() -> None:
    cancelled = []

    async def body() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def read() -> object:
        return "always the same"

    async def run() -> None:
        async with stop_if_stalled(Watchdog(idle_seconds=0.2), read, poll_seconds=0.01):
            await body()

    with pytest.raises(StalledError, match="no progress"):
        asyncio.run(run())
    assert cancelled == [True]


def test_body_that_progresses_ends_by_itself() -> None:
    readings = itertools.count()

    async def read() -> object:
        return next(readings)

    async def run() -> None:
        async with stop_if_stalled(Watchdog(idle_seconds=5), read, poll_seconds=0.01):
            await asyncio.sleep(0.2)

    asyncio.run(run())
    assert next(readings) > 2


def test_failing_reading_is_no_progress_but_no_error_either() -> None:
    readings = itertools.count()

    async def read() -> object:
        if next(readings) > 2:
            raise OperationalError("SELECT", {}, ConnectionError("gone"))
        return next(readings)

    async def run() -> None:
        async with stop_if_stalled(Watchdog(idle_seconds=0.2), read, poll_seconds=0.01):
            await asyncio.sleep(3600)

    with pytest.raises(StalledError, match="no progress"):
        asyncio.run(run())
    assert next(readings) > 5


def test_any_other_error_of_a_reading_ends_the_body() -> None:
    cancelled = []

    async def read() -> object:
        raise LookupError("no such counter")

    async def run() -> None:
        async with stop_if_stalled(Watchdog(), read, poll_seconds=0.01):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    with pytest.raises(LookupError, match="no such counter"):
        asyncio.run(asyncio.wait_for(run(), 30))
    assert cancelled == [True]


@pytest.mark.parametrize("error", [TimeoutError("of the body"), ValueError("wrong")])
def test_errors_of_the_body_pass(error: Exception) -> None:
    async def read() -> object:
        return None

    async def run() -> None:
        async with stop_if_stalled(Watchdog(), read, poll_seconds=0.01):
            await asyncio.sleep(0)
            raise error

    with pytest.raises(type(error), match=str(error)):
        asyncio.run(run())


def test_cancelled_task_stays_cancelled() -> None:
    async def read() -> object:
        return None

    async def run() -> None:
        async with stop_if_stalled(Watchdog(), read, poll_seconds=0.01):
            await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.create_task(run())
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
