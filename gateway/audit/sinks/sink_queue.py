"""One sink's lane: a queue with a bound, a thread, and the callers who wait for it.

Theory. The event loop gathers records into a group; while one group is with the sink, the next gathers. So one caller
alone pays one sync, and a thousand at once pay one each thousand. All of a lane's state belongs to the loop, which
hands a whole group to the thread and gets it back whole: one wake of the thread and one of the loop a group, because
these hand-overs, and not the bytes, are what a record costs.

Where many calls are under way a group is let grow for a while: see gateway.audit.group_commit. Without that each call
would have a sync nearly to itself.

A record that a caller waits for sends its group off at the end of the loop's turn, with all others of that turn. One
that nobody waits for rides with the next group, and leaves by itself after RIDE_SECONDS, which is how much of a crash's
trace can be missing beyond what was with the sink.
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
_SWEEPS: Final = 4
"""How often in a lane's time those are looked for whose time is up. One timer for all is cheaper than one each."""
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 5.0


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """On what options a sink is served."""

    name: str
    required: bool
    """Whether callers wait for it, and are refused where it fails."""
    timeout_seconds: float
    queue_records: int


class SinkQueue:
    """Serves one sink. Except for its thread, all of it is for one event loop."""

    def __init__(
        self, sink: Sink, options: SinkOptions, gap: GapRecord, patience: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`patience` says how many seconds a group may grow that begins now; it is asked once for each."""
        self.options = options
        self._patience = patience
        self.healthy = False
        """Whether the last write succeeded."""
        self.waiting = 0
        """Records not yet written."""
        self.lost = 0
        """Records since the start that the sink did not get."""
        self._pump = SinkThread(sink, options.name, gap, self._landed, self._rested)
        self._open = False
        self._unsaid = 0
        self._forming = Group()
        self._flying: Group | None = None
        self._departure: asyncio.Handle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_seconds = _FIRST_RETRY
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Opens the sink and begins. Raises ConfigError."""
        self._loop = asyncio.get_running_loop()
        await self._pump.start()
        self.healthy = self._open = True

    def enqueue(self, record: bytes) -> asyncio.Future[bool] | None:
        """Puts `record` in line; the future says whether it was written in time. None: the lane is full or closed."""
        if not self._add(record):
            return None
        group = self._forming
        if not group.waiters:
            group.born = self._loop.time()
        done: asyncio.Future[bool] = self._loop.create_future()
        group.waiters.append(done)
        if self._flying is None and self._departure is None:
            self._depart()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self.options.timeout_seconds / _SWEEPS, self._sweep)
        return done

    def enqueue_nowait(self, record: bytes) -> None:
        """Puts `record`, which nobody waits for, in line. One that finds no room is counted as lost."""
        if self._add(record) and self._tick is None:
            self._tick = self._loop.call_later(FLUSH_SECONDS, self._ticked)

    async def stop(self) -> None:
        """Writes what waits, within the lane's time, and closes the sink. Says so where that was not enough."""
        if not self._open:
            return
        self._open = False
        self._hurry()
        try:
            async with asyncio.timeout(self.options.timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._abandon()
        if not await self._pump.stop(self.options.timeout_seconds):
            _log.error("audit sink not closed in time", extra={"sink": self.options.name})
        for timer in (self._departure, self._tick, self._sweeper, self._retry):
            if timer is not None:
                timer.cancel()

    def _add(self, record: bytes) -> bool:
        if not self._open or self.waiting >= self.options.queue_records:
            self._forming.dropped += 1
            self._lose(1, "full")
            return False
        self.waiting += 1
        self._forming.records.append(record)
        self._idle.clear()
        return True

    def _depart(self) -> None:
        """Lets the group take off, now or when it has gathered."""
        if (seconds := self._patience()) > 0:
            self._departure = self._loop.call_later(seconds, self._take_off)
        else:
            self._departure = self._loop.call_soon(self._take_off)

    def _take_off(self) -> None:
        """Hands the group over to the thread, unless that has one already or there is none."""
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None
        if self._flying is not None or not self._forming.records:
            return
        group, self._forming = self._forming, Group()
        group.owned_to = self._unsaid - group.dropped
        self._fly(group)

    def _fly(self, group: Group) -> None:
        self._flying = group
        self._pump.put(group)

    def _ticked(self) -> None:
        self._tick = None
        self._take_off()

    def _landed(self, group: Group, failure: Exception | None) -> None:
        """A group is back, unless it was given up meanwhile."""
        if group is not self._flying:
            return
        if failure is not None and self._again(group, failure):
            return
        self._flying = None
        self.waiting -= len(group.records)
        for done in group.waiters:
            if not done.done():
                done.set_result(failure is None)
        if failure is None:
            self._wrote(group)
        else:
            self._lose(len(group.records), _why(failure))
        self._next()

    def _rested(self, failure: Exception | None) -> None:
        """The sink was found to be down while nothing was written, or to be well again."""
        if failure is not None:
            self._fails(_why(failure))
        elif not self._unsaid:
            self._recovers()

    def _next(self) -> None:
        if self._forming.waiters or (self._forming.records and self._tick is None):
            self._depart()
        elif not self._forming.records:
            self._idle.set()

    def _wrote(self, group: Group) -> None:
        self._unsaid -= group.owned_to
        self._retry_seconds = _FIRST_RETRY
        if not self._unsaid:
            self._recovers()

    def _recovers(self) -> None:
        if not self.healthy:
            self.healthy = True
            _log.info("audit sink writes again", extra={"sink": self.options.name, "lost": self.lost})

    def _again(self, group: Group, failure: Exception) -> bool:
        """Whether a group is tried again: that of a sink nobody waits for is, while the queue behind it has room."""
        if self.options.required or not self._open or isinstance(failure, SinkRefused):
            return False
        self._fails(_why(failure))
        self._retry = self._loop.call_later(self._retry_seconds, self._retried, group)
        self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY)
        return True

    def _retried(self, group: Group) -> None:
        self._retry = None
        self._pump.put(group)

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        self._unsaid += count
        self._fails(why)

    def _fails(self, why: str) -> None:
        """Said once, until it is well again."""
        if self.healthy:
            _log.error("audit records not written", extra={"sink": self.options.name, "why": why})
        self.healthy = False

    def _sweep(self) -> None:
        """Refuses those whose time is up, or will be before the next sweep."""
        self._sweeper = None
        patience = self.options.timeout_seconds * (1 - 1 / _SWEEPS)
        groups = [group for group in (self._flying, self._forming) if group is not None and group.waiters]
        for group in groups:
            if self._loop.time() - group.born >= patience:
                self._refuse(group)
        if any(group.waiters for group in groups):
            self._sweeper = self._loop.call_later(self.options.timeout_seconds / _SWEEPS, self._sweep)

    def _refuse(self, group: Group) -> None:
        """Its records stay in line: they say what happened, and nobody waits for them any more."""
        waiters, group.waiters = group.waiters, []
        for done in waiters:
            if not done.done():
                done.set_result(False)
        self._fails("time is up")

    def _hurry(self) -> None:
        """At the stop: what waits for its time goes now."""
        if self._retry is not None and self._flying is not None:
            self._retry.cancel()
            self._retried(self._flying)
        self._take_off()

    def _abandon(self) -> None:
        for group in (self._flying, self._forming):
            if group is not None:
                self._refuse(group)
                self._lose(len(group.records), "stopped")
        self._flying, self._forming = None, Group()


def _why(failure: Exception) -> str:
    if isinstance(failure, SinkFailed):
        return str(failure)
    return (isinstance(failure, OSError) and failure.strerror) or "internal error"
