"""A sink queue: one hand-over for each group, a bound on waiting records, and a gap record for each lost one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.audit.sinks.sink import SinkFailed, SinkRefused
from gateway.audit.sinks.sink_queue import FLUSH_SECONDS, SinkOptions, SinkQueue
from meshgate.runtime.config import ConfigError
from tests.support.fixtures.waiting import until


class Sink:
    """Keeps groups; holds them back and fails on demand."""

    def __init__(self) -> None:
        self.groups: list[list[bytes]] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.closed = False
        self.opens: Exception | None = None

    def open(self) -> None:
        if self.opens:
            raise self.opens

    def write(self, records: Sequence[bytes]) -> None:
        self.reached.set()
        self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.groups.append(list(records))

    def due(self) -> float | None:
        return None

    def idle(self) -> None:
        return

    def close(self) -> None:
        self.closed = True

    @property
    def records(self) -> list[bytes]:
        return [record for group in self.groups for record in group]


def gap(missing: int) -> bytes:
    return json.dumps({"missing": missing}).encode()


@asynccontextmanager
async def opened(
    sink: Sink, *, required: bool = True, seconds: float = 5.0, bound: int = 100
) -> AsyncIterator[SinkQueue]:
    queue = SinkQueue(sink, SinkOptions("test", required, seconds, bound), gap)
    await queue.start()
    try:
        yield queue
    finally:
        sink.gate.set()
        await queue.stop()
        assert sink.closed
        assert not any(thread.name == "audit-test" for thread in threading.enumerate())


async def entered(queue: SinkQueue, record: bytes) -> bool:
    done = queue.enqueue(record)
    return done is not None and await done


async def test_what_nobody_waits_for_rides_with_what_somebody_does() -> None:
    sink = Sink()
    async with opened(sink) as queue:
        queue.enqueue_nowait(b"admitted")
        assert await entered(queue, b"ended")
    assert sink.groups == [[b"admitted", b"ended"]]


async def test_what_nobody_waits_for_leaves_soon_by_itself() -> None:
    sink = Sink()
    async with opened(sink) as queue:
        loop = asyncio.get_running_loop()
        queue.enqueue_nowait(b"1")
        began = loop.time()
        await until(sink.reached.is_set)
        assert loop.time() - began >= FLUSH_SECONDS * 0.5
        assert sink.records == [b"1"]


async def spread(queue: SinkQueue, sink: Sink) -> None:
    """Three records, each some turns of the loop after the one before; the first is with the sink if it can be."""
    waiting = []
    for number in range(3):
        waiting.append(queue.enqueue(b"%d" % number))
        for _ in range(5):
            await asyncio.sleep(0)
    assert all([done is not None and await done for done in waiting])


@pytest.mark.parametrize("crowded", [True, False])
async def test_a_group_gathers_where_many_calls_are_under_way(crowded: bool) -> None:
    sink = Sink()
    queue = SinkQueue(sink, SinkOptions("test", True, 5, 100), gap, lambda: 0.5 if crowded else 0.0)
    await queue.start()
    await spread(queue, sink)
    assert sink.records == [b"0", b"1", b"2"]
    assert (len(sink.groups) == 1) == crowded
    await queue.stop()


async def test_a_stop_does_not_wait_for_a_group_to_gather() -> None:
    sink = Sink()
    queue = SinkQueue(sink, SinkOptions("test", True, 5, 100), gap, lambda: 60.0)
    await queue.start()
    done = queue.enqueue(b"1")
    await queue.stop()
    assert done is not None
    assert await done
    assert sink.records == [b"1"]


async def test_order_is_that_of_arrival() -> None:
    sink = Sink()
    async with opened(sink) as queue:
        sink.gate.clear()
        waiting = []
        for number in range(30):
            queue.enqueue_nowait(b"left %d" % number)
            waiting.append(queue.enqueue(b"entered %d" % number))
            await asyncio.sleep(0)
        sink.gate.set()
        assert all([await done for done in waiting if done])
    assert sink.records == [b"%s %d" % (how, number) for number in range(30) for how in (b"left", b"entered")]
    assert len(sink.groups) == 2


async def test_a_failed_group_is_reported_as_a_gap() -> None:
    sink = Sink()
    async with opened(sink) as queue:
        sink.failures = [SinkFailed("away"), OSError(5, "broken")]
        queue.enqueue_nowait(b"left")
        assert not await entered(queue, b"1")
        assert not await entered(queue, b"2")
        assert (queue.healthy, queue.lost) == (False, 3)
        assert await entered(queue, b"3")
        assert await entered(queue, b"4")
        assert (queue.healthy, queue.lost) == (True, 3)
    assert sink.records == [gap(3), b"3", b"4"]


async def test_a_bug_of_a_sink_fails_its_group_alone() -> None:
    sink = Sink()
    async with opened(sink) as queue:
        sink.failures = [ZeroDivisionError()]
        assert not await entered(queue, b"1")
        assert await entered(queue, b"2")


async def test_a_full_lane_takes_nothing_and_owns_to_it() -> None:
    sink = Sink()
    async with opened(sink, bound=3) as queue:
        sink.gate.clear()
        waiting = [queue.enqueue(b"%d" % number) for number in range(3)]
        assert queue.enqueue(b"4") is None
        queue.enqueue_nowait(b"5")
        assert queue.lost == 2
        sink.gate.set()
        assert all([await done for done in waiting if done])
        assert await entered(queue, b"6")
    assert sink.records == [b"0", b"1", b"2", gap(2), b"6"]


async def test_those_whose_time_is_up_are_refused_and_their_records_stay() -> None:
    sink = Sink()
    async with opened(sink, seconds=0.5) as queue:
        sink.gate.clear()
        assert not any(await asyncio.gather(entered(queue, b"1"), entered(queue, b"2")))
        await until(sink.reached.is_set)
        assert not await entered(queue, b"3")
        sink.gate.set()
        await until(lambda: not queue.waiting)
    assert sink.records == [b"1", b"2", b"3"]


async def test_what_nobody_waits_for_is_tried_again() -> None:
    sink = Sink()
    async with opened(sink, required=False) as queue:
        sink.failures = [SinkFailed("away"), SinkFailed("away")]
        queue.enqueue_nowait(b"1")
        await until(lambda: bool(sink.groups))
        await until(lambda: not queue.waiting)
        assert (queue.healthy, queue.lost) == (True, 0)
    assert sink.records == [b"1"]


async def test_what_a_sink_will_never_take_is_not_tried_again() -> None:
    sink = Sink()
    async with opened(sink, required=False) as queue:
        sink.failures = [SinkRefused("bad")]
        queue.enqueue_nowait(b"1")
        await until(lambda: queue.lost == 1)
        queue.enqueue_nowait(b"2")
        await until(lambda: not queue.waiting)
    assert sink.records == [gap(1), b"2"]


async def test_a_stop_does_not_wait_for_the_next_try() -> None:
    sink = Sink()
    async with opened(sink, required=False) as queue:
        sink.failures = [SinkFailed("away")]
        queue.enqueue_nowait(b"1")
        await until(lambda: not queue.healthy)
    assert sink.records == [b"1"]


async def test_a_stop_is_bounded_and_counts_what_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    queue = SinkQueue(sink, SinkOptions("stuck", True, 0.05, 10), gap)
    await queue.start()
    sink.gate.clear()
    flying = queue.enqueue(b"1")
    await until(sink.reached.is_set)
    forming = queue.enqueue(b"2")
    async with asyncio.timeout(20):
        await queue.stop()
    assert flying is not None
    assert forming is not None
    assert not await flying
    assert not await forming
    assert "not closed in time" in caplog.text
    sink.gate.set()
    await until(lambda: sink.closed)
    await until(lambda: not any(thread.name == "audit-stuck" for thread in threading.enumerate()))


async def test_an_outage_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    async with opened(sink) as queue:
        sink.failures = [SinkFailed("away") for _ in range(5)]
        for number in range(5):
            assert not await entered(queue, b"%d" % number)
    assert caplog.text.count("audit records not written") == 1


async def test_a_sink_that_cannot_be_opened_stops_the_start() -> None:
    sink = Sink()
    sink.opens = ConfigError("audit.sinks: no")
    queue = SinkQueue(sink, SinkOptions("test", True, 1, 10), gap)
    with pytest.raises(ConfigError):
        await queue.start()
    assert sink.closed
    assert queue.enqueue(b"1") is None
    await queue.stop()
