"""The queue of one sink: bounded, with a thread that writes, and the callers that wait for it.

Theory. The event loop gathers records into a group. While the sink writes one group, the next one gathers. So a lone
caller pays one sync, and a thousand callers at once share one. All state of the queue belongs to the event loop, which
hands a whole group to the thread and gets it back whole. That is one wake of the thread and one of the loop for each
group: these hand-overs, and not the bytes, are the cost of a record.

While many calls are in flight, a group may grow for a while: see gateway.audit.group_commit. Otherwise each call would
have a sync nearly to itself.

A record for which a caller waits sends its group to the thread at the end of the loop's turn, with all others of that
turn. A record for which no caller waits goes with the next group, and by itself after FLUSH_SECONDS. So a crash can
lose that much of the trace, beyond the group that the sink was writing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.audit.sinks.sink import Sink, SinkFailed, SinkRefused
from gateway.audit.sinks.sink_thread import GapRecord, Group, SinkThread

_log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 0.01
_EXPIRY_CHECKS: Final = 4
"""Checks for waiting callers whose time is up, in each timeout. One timer for all is cheaper than one for each."""
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 5.0


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """The options of one sink."""

    name: str
    required: bool
    """Whether callers wait for the sink, and are refused where it fails."""
    timeout_seconds: float
    queue_records: int


class SinkQueue:
    """Serves one sink. Except for its thread, all of it belongs to one event loop."""

    def __init__(
        self, sink: Sink, options: SinkOptions, gap: GapRecord, delay: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`delay` gives the seconds for which a group that begins now may grow; it is called once for each group."""
        self.options = options
        self._delay = delay
        self.healthy = False
        """Whether the last write succeeded."""
        self.waiting = 0
        """Records not yet written."""
        self.lost = 0
        """Records since the start that the sink did not get."""
        self._thread = SinkThread(sink, options.name, gap, self._on_written, self._on_idle)
        self._open = False
        self._unreported = 0
        self._gathering = Group()
        self._in_flight: Group | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_seconds = _FIRST_RETRY
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Opens the sink and starts the thread. Raises ConfigError."""
        self._loop = asyncio.get_running_loop()
        await self._thread.start()
        self.healthy = self._open = True

    def enqueue(self, record: bytes) -> asyncio.Future[bool] | None:
        """Enqueues `record`. The future says whether it was written in time. None: the queue is full or closed."""
        if not self._add(record):
            return None
        group = self._gathering
        if not group.waiters:
            group.waiting_since = self._loop.time()
        done: asyncio.Future[bool] = self._loop.create_future()
        group.waiters.append(done)
        if self._in_flight is None and self._flush_handle is None:
            self._schedule()
        if self._expiry_timer is None:
            self._expiry_timer = self._loop.call_later(self.options.timeout_seconds / _EXPIRY_CHECKS, self._expire)
        return done

    def enqueue_nowait(self, record: bytes) -> None:
        """Enqueues `record`, for which no caller waits. Where the queue is full, the record is counted as lost."""
        if self._add(record) and self._flush_timer is None:
            self._flush_timer = self._loop.call_later(FLUSH_SECONDS, self._flush_due)

    async def stop(self) -> None:
        """Writes the waiting records within the sink's timeout and closes the sink. Logs where that was not enough."""
        if not self._open:
            return
        self._open = False
        self._flush_now()
        try:
            async with asyncio.timeout(self.options.timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._abandon()
        if not await self._thread.stop(self.options.timeout_seconds):
            _log.error("audit sink not closed in time", extra={"sink": self.options.name})
        for timer in (self._flush_handle, self._flush_timer, self._expiry_timer, self._retry):
            if timer is not None:
                timer.cancel()

    def _add(self, record: bytes) -> bool:
        if not self._open or self.waiting >= self.options.queue_records:
            self._gathering.dropped += 1
            self._count_lost(1, "full")
            return False
        self.waiting += 1
        self._gathering.records.append(record)
        self._idle.clear()
        return True

    def _schedule(self) -> None:
        """Schedules the flush of the gathered group, now or after the group-commit delay."""
        if (seconds := self._delay()) > 0:
            self._flush_handle = self._loop.call_later(seconds, self._flush)
        else:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hands the gathered group to the thread, unless the thread has one or there is none."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._in_flight is not None or not self._gathering.records:
            return
        group, self._gathering = self._gathering, Group()
        group.reported_missing = self._unreported - group.dropped
        self._write(group)

    def _write(self, group: Group) -> None:
        self._in_flight = group
        self._thread.write(group)

    def _flush_due(self) -> None:
        self._flush_timer = None
        self._flush()

    def _on_written(self, group: Group, failure: Exception | None) -> None:
        """Takes a group back from the thread, unless it was given up meanwhile."""
        if group is not self._in_flight:
            return
        if failure is not None and self._retries(group, failure):
            return
        self._in_flight = None
        self.waiting -= len(group.records)
        for done in group.waiters:
            if not done.done():
                done.set_result(failure is None)
        if failure is None:
            self._succeeded(group)
        else:
            self._count_lost(len(group.records), _why(failure))
        self._continue()

    def _on_idle(self, failure: Exception | None) -> None:
        """The thread found the sink down while nothing was written, or found it well again."""
        if failure is not None:
            self._failed(_why(failure))
        elif not self._unreported:
            self._recovered()

    def _continue(self) -> None:
        if self._gathering.waiters or (self._gathering.records and self._flush_timer is None):
            self._schedule()
        elif not self._gathering.records:
            self._idle.set()

    def _succeeded(self, group: Group) -> None:
        self._unreported -= group.reported_missing
        self._retry_seconds = _FIRST_RETRY
        if not self._unreported:
            self._recovered()

    def _recovered(self) -> None:
        if not self.healthy:
            self.healthy = True
            _log.info("audit sink writes again", extra={"sink": self.options.name, "lost": self.lost})

    def _retries(self, group: Group, failure: Exception) -> bool:
        """Whether a group is tried again: a group of a sink that is not required is, while the queue has room."""
        if self.options.required or not self._open or isinstance(failure, SinkRefused):
            return False
        self._failed(_why(failure))
        self._retry = self._loop.call_later(self._retry_seconds, self._retry_now, group)
        self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY)
        return True

    def _retry_now(self, group: Group) -> None:
        self._retry = None
        self._thread.write(group)

    def _count_lost(self, count: int, why: str) -> None:
        self.lost += count
        self._unreported += count
        self._failed(why)

    def _failed(self, why: str) -> None:
        """Logs the first failure of an outage."""
        if self.healthy:
            _log.error("audit records not written", extra={"sink": self.options.name, "why": why})
        self.healthy = False

    def _expire(self) -> None:
        """Refuses the callers whose time is up, or will be before the next check."""
        self._expiry_timer = None
        longest = self.options.timeout_seconds * (1 - 1 / _EXPIRY_CHECKS)
        groups = [group for group in (self._in_flight, self._gathering) if group is not None and group.waiters]
        for group in groups:
            if self._loop.time() - group.waiting_since >= longest:
                self._refuse(group)
        if any(group.waiters for group in groups):
            self._expiry_timer = self._loop.call_later(self.options.timeout_seconds / _EXPIRY_CHECKS, self._expire)

    def _refuse(self, group: Group) -> None:
        """Refuses the callers of a group. Its records stay queued: they say what happened."""
        waiters, group.waiters = group.waiters, []
        for done in waiters:
            if not done.done():
                done.set_result(False)
        self._failed("time is up")

    def _flush_now(self) -> None:
        """Flushes at the stop what would still wait for its time."""
        if self._retry is not None and self._in_flight is not None:
            self._retry.cancel()
            self._retry_now(self._in_flight)
        self._flush()

    def _abandon(self) -> None:
        for group in (self._in_flight, self._gathering):
            if group is not None:
                self._refuse(group)
                self._count_lost(len(group.records), "stopped")
        self._in_flight, self._gathering = None, Group()


def _why(failure: Exception) -> str:
    if isinstance(failure, SinkFailed):
        return str(failure)
    return (isinstance(failure, OSError) and failure.strerror) or "internal error"
