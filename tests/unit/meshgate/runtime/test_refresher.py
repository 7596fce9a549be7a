"""A refresh runs after every interval, its age is known, an outage is logged once, and no hang outlasts its bound."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from meshgate.runtime.refresher import Refresher, SourceHealth

OUT, BACK = "source is out, what is known stays", "source is back"


class Clock:
    """A clock that a sleep moves on, and that stops when the sleeps it was given are over."""

    def __init__(self, sleeps: int = 3) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.over = asyncio.Event()
        self._sleeps = sleeps

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if len(self.slept) == self._sleeps:
            self.over.set()
            await asyncio.Event().wait()
        self.slept.append(seconds)
        self.now += seconds


class Source:
    """Counts, and raises what it is given, one error a refresh."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.times = 0

    def __call__(self) -> None:
        self.times += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error


@asynccontextmanager
async def running(refresher: Refresher) -> AsyncIterator[Refresher]:
    refresher.start()
    try:
        yield refresher
    finally:
        await refresher.stop()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


async def test_it_refreshes_after_every_interval() -> None:
    clock, source = Clock(), Source()
    async with running(Refresher("keys", source, 10.0, clock=clock, sleep=clock.sleep)) as refresher:
        await clock.over.wait()
        assert (clock.slept, source.times) == ([10.0, 10.0, 10.0], 3)
        clock.now += 4
        assert refresher.state().age_seconds == 4


async def test_each_interval_is_asked_for() -> None:
    clock, pauses = Clock(), iter((5.0, 7.0, 9.0, 11.0, 13.0))
    async with running(Refresher("keys", Source(), lambda: next(pauses), clock=clock, sleep=clock.sleep)):
        await clock.over.wait()
    assert clock.slept == [7.0, 9.0, 11.0]  # the first is that of `poll`


async def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock, source = Clock(4), Source(None, OSError(5, "Input/output error"), ValueError("s3cret"), None)
    async with running(Refresher("keys", source, 10.0, clock=clock, sleep=clock.sleep)) as refresher:
        await clock.over.wait()
        assert (refresher.state().age_seconds, refresher.state().failures) == (0, 2)
    assert logged(caplog) == [OUT, BACK]
    assert caplog.records[0].__dict__["why"] == "Input/output error"
    assert "s3cret" not in caplog.text


async def test_while_it_fails_the_age_grows() -> None:
    clock, source = Clock(3), Source(None, ValueError(), ValueError())
    async with running(Refresher("keys", source, 10.0, clock=clock, sleep=clock.sleep)) as refresher:
        await clock.over.wait()
        assert refresher.state().age_seconds == 20


async def test_a_refresh_that_hangs_is_cancelled_at_its_bound(caplog: pytest.LogCaptureFixture) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    refresher = Refresher("keys", hang, 10.0, timeout=0.01)
    async with asyncio.timeout(10):
        await refresher.refresh()
    assert caplog.records[0].__dict__["why"] == "timed out"


async def test_stop_cancels_a_refresh_in_progress_and_leaves_no_task() -> None:
    before, begun, cancelled = asyncio.all_tasks(), asyncio.Event(), []

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    refresher = Refresher("keys", hang, 0.0)
    await refresher.stop()  # one that never began
    refresher.start()
    await begun.wait()
    await refresher.stop()
    await refresher.stop()
    assert (cancelled, asyncio.all_tasks()) == ([True], before)


async def test_stop_ends_a_refresh_that_swallows_its_cancellation() -> None:
    begun = asyncio.Event()

    async def swallow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    refresher = Refresher("keys", swallow, 0.0)
    refresher.start()
    await begun.wait()
    async with asyncio.timeout(10):
        await refresher.stop()


async def test_wake_asks_for_the_interval_anew() -> None:
    left, refreshed = [3600.0], asyncio.Event()

    async def refresh() -> None:
        left[0] = 3600.0
        refreshed.set()

    async with running(Refresher("keys", refresh, lambda: left[0])) as refresher:
        await asyncio.sleep(0)
        left[0] = 0.0
        refresher.wake()
        async with asyncio.timeout(10):
            await refreshed.wait()


def test_in_a_thread_it_is_polled() -> None:
    clock, source = Clock(), Source(None, ValueError("no key"))
    refresher = Refresher("keys", source, 60.0, why=str, clock=clock)
    refresher.poll()
    assert (refresher.due(), source.times) == (60, 0)
    for times in (1, 2):
        clock.now += 60
        refresher.poll()
        refresher.poll()
        assert (refresher.due(), source.times) == (60, times)
    assert (refresher.state().age_seconds, refresher.state().failures) == (60, 1)


@pytest.mark.parametrize("refresh", [Source(), Source(ValueError())])
async def test_a_source_records_its_own_success(refresh: Callable[[], Awaitable[None] | None]) -> None:
    """A refresh that returns may have failed: the source says."""
    health = SourceHealth("revocations")
    refresher = Refresher(health, refresh, 1.0)
    await refresher.refresh()
    assert refresher.state().age_seconds == float("inf")
