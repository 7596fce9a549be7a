"""What comes before an engine: texts are tokenised, templates rendered and constraints compiled here.

The work is done on a few threads, a step at a time (see services.text.pieces), and after each step whoever's turn it
is goes on: each tenant gets an equal share of the characters that are read, and of a tenant's share each of its
subjects. So nobody waits for another's long text, only for a step of it. A step that can't be short runs beside no
other such step, so that a thread is left for short ones.

The bytes in hand are bounded, and no tenant has all of them: what is too much is refused, or waits where it is a
stream's. A step can't be stopped. What a departed caller had waiting is dropped at once; what runs counts until its
step has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Generic, NamedTuple, TypeVar

from meshgate.errors import MeshError, Unavailable
from meshgate.rpc.call.cancellation import caller_left
from services.batching.tenant_capacity import TenantCapacity
from services.common.caller import NOBODY, CallerIdentity
from services.common.drain_errors import draining
from services.cpu import malloc_tuning
from services.text.pieces import PIECE

ResultT = TypeVar("ResultT")
Steps = Generator[int, None, ResultT]
"""Work in steps: each yields the characters of the step that follows it, and the last one returns."""

BYTES: Final = 33_554_432
"""Bytes in hand: four messages of the largest size."""
_LEAST: Final = 256
"""Bytes that work counts for at least."""
_THREADS: Final = 2
_LONG: Final = 4 * PIECE
"""Characters from which on a step is a long one."""
_REMEMBERED: Final = 1024
_TRIMMED: Final = 262_144
"""Bytes of a work after which memory is given back."""
_FIRST_RATE: Final = 1_000_000.0
"""Characters a second, before anything was measured."""
_NEWEST: Final = 0.1
"""What the newest step counts for in their running mean."""
_TICK: Final = 1e-4
_RETRY_LEAST: Final = 0.05
_RETRY_MOST: Final = 30.0


class _Job(Generic[ResultT]):
    """Work of one call."""

    __slots__ = ("done", "gone", "next", "running", "size", "steps", "who")

    def __init__(
        self, who: CallerIdentity, steps: Steps[ResultT], size: int, first: int, done: asyncio.Future[ResultT]
    ) -> None:
        self.who = who
        self.steps = steps
        self.size = size
        self.next = first
        """Characters of its next step."""
        self.done = done
        self.running = False
        self.gone = False


class _Shares:
    """The names that wait on one level, and what each has had.

    This is start-time fair queueing: see services.batching.fair_queue.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, Any] = {}
        self._had: dict[str, int] = {}
        self._reached = 0

    def join(self, name: str, kind: Callable[[], Any]) -> Any:
        """What a name has waiting; who was idle has saved nothing up."""
        if name not in self.waiting:
            self._had[name] = max(self._had.get(name, 0), self._reached)
            self.waiting[name] = kind()
        return self.waiting[name]

    def first(self) -> str:
        """Whose turn it is."""
        name = min(self.waiting, key=self._had.__getitem__)
        self._reached = max(self._reached, self._had[name])
        return name

    def charge(self, name: str, cost: int) -> None:
        """A name gets so much. One that has nothing waiting keeps what it owes, as long as somebody else waits."""
        self._had[name] += cost
        if not self.waiting[name]:
            del self.waiting[name]
        if not self.waiting:
            self._had.clear()
            self._reached = 0
        elif len(self._had) > _REMEMBERED + 2 * len(self.waiting):
            self._had = {each: self._had[each] for each in self.waiting}

    def __bool__(self) -> bool:
        return bool(self.waiting)


class _Turns:
    """Jobs that wait, of several tenants and their subjects."""

    def __init__(self) -> None:
        self._tenants = _Shares()

    def add(self, job: _Job[Any]) -> None:
        """Appends a job to its subject's."""
        subjects = self._tenants.join(job.who.tenant, _Shares)
        subjects.join(job.who.subject, deque).append(job)

    def next(self) -> _Job[Any] | None:
        """Removes and returns whose turn it is, and charges its step."""
        while self._tenants:
            tenant = self._tenants.first()
            subjects: _Shares = self._tenants.waiting[tenant]
            subject = subjects.first()
            job: _Job[Any] = subjects.waiting[subject].popleft()
            cost = 0 if job.gone else job.next + _LEAST
            subjects.charge(subject, cost)
            self._tenants.charge(tenant, cost)
            if not job.gone:
                return job
        return None


class _Stepped(NamedTuple):
    """What came of a step."""

    next: int | None
    """Characters of the next one; None after the last."""
    result: Any = None
    error: BaseException | None = None


class PreparationQueue:
    """For one event loop."""

    def __init__(self, capacity: int = BYTES, name: str = "preparing", threads: int = _THREADS) -> None:
        """`capacity` is in bytes; `name` is that of the threads."""
        self.room = TenantCapacity(capacity)
        self.refused = 0
        self._closed: Callable[[], MeshError] | None = None
        self._short, self._long = _Turns(), _Turns()
        self._free = threads
        self._long_runs = False
        self._rate = _FIRST_RATE
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(
        self, who: CallerIdentity, steps: Steps[ResultT], size: int, first: int, *, wait: bool = False
    ) -> ResultT:
        """What the steps return. `size` is the bytes of all, `first` the characters of the first step.

        Raises Unavailable (OVERLOADED) where too much is in hand, unless `wait`, which waits; and what `close` says.
        """
        self._check_open()
        weight = max(size, _LEAST)
        await self._take(who.tenant, weight, wait=wait)
        job = _Job(who, steps, weight, first, asyncio.get_running_loop().create_future())
        self._queue(job)
        self._begin()
        try:
            made: ResultT = await job.done
            return made
        except asyncio.CancelledError:
            if not caller_left():
                self._check_open()
            raise
        finally:
            job.gone = True
            if not job.running:
                self._end(job)

    def close(self, why: Callable[[], MeshError] | None = None) -> None:
        """Ends the threads once they have done the steps that they are at. Those who wait, or come, are told `why`, or
        that the server stops.
        """
        self._closed = why or draining
        self.room.close(self._closed)
        for turns in (self._short, self._long):
            while (job := turns.next()) is not None:
                if not job.done.done():
                    job.done.set_exception(self._closed())
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _take(self, tenant: str, weight: int, *, wait: bool) -> None:
        if wait:
            await self.room.wait(tenant, weight)
        elif self.room.fits(tenant, weight):
            self.room.take(tenant, weight)
        else:
            self.refused += 1
            after = min(_RETRY_MOST, max(_RETRY_LEAST, self.room.held / self._rate))
            raise Unavailable("too much text is being read", reason="OVERLOADED", retry_after=after)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed()

    def _queue(self, job: _Job[Any]) -> None:
        (self._long if job.next > _LONG else self._short).add(job)

    def _begin(self) -> None:
        """Gives the threads that are free what is next."""
        loop = asyncio.get_running_loop()
        while self._free and self._closed is None and (job := self._next()) is not None:
            self._free -= 1
            job.running = True
            self._threads.submit(self._step, job, loop, job.next > _LONG)

    def _next(self) -> _Job[Any] | None:
        job = None if self._long_runs else self._long.next()
        if job is not None:
            self._long_runs = True
            return job
        return self._short.next()

    def _step(self, job: _Job[Any], loop: asyncio.AbstractEventLoop, long: bool) -> None:
        """On a thread."""
        began = time.monotonic()
        try:
            stepped = _Stepped(next(job.steps))
        except StopIteration as ended:
            stepped = _Stepped(None, ended.value)
        except BaseException as error:
            stepped = _Stepped(None, None, error)
        if stepped.next is None and job.size >= _TRIMMED:
            malloc_tuning.trim()
        with contextlib.suppress(RuntimeError):  # the loop has closed, and nobody waits
            loop.call_soon_threadsafe(self._stepped, job, stepped, time.monotonic() - began, long)

    def _stepped(self, job: _Job[Any], stepped: _Stepped, seconds: float, long: bool) -> None:
        self._free += 1
        self._long_runs = self._long_runs and not long
        job.running = False
        if job.next >= _LEAST:
            self._rate += _NEWEST * (job.next / max(seconds, _TICK) - self._rate)
        if job.gone:
            self._end(job)
        elif not job.done.done():
            self._go_on(job, stepped)
        self._begin()

    def _go_on(self, job: _Job[Any], stepped: _Stepped) -> None:
        if stepped.error is not None:
            job.done.set_exception(stepped.error)
        elif stepped.next is None:
            job.done.set_result(stepped.result)
        elif self._closed is not None:
            job.done.set_exception(self._closed())
        else:
            job.next = stepped.next
            self._queue(job)

    def _end(self, job: _Job[Any]) -> None:
        if job.size:
            job.steps.close()
            self.room.give(job.who.tenant, job.size)
            job.size = 0


class PreparedText(NamedTuple):
    """Who reads, and whether they wait for a place: a stream's messages do."""

    preparing: PreparationQueue
    who: CallerIdentity = NOBODY
    wait: bool = False

    async def run(self, steps: Steps[ResultT], size: int, first: int) -> ResultT:
        """See Preparing."""
        return await self.preparing.run(self.who, steps, size, first, wait=self.wait)


def whole(steps: Steps[ResultT]) -> ResultT:
    """What steps return, for a thread that may wait."""
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            made: ResultT = ended.value
            return made


def at_once(work: Callable[[], ResultT]) -> Steps[ResultT]:
    """Work in a single step."""
    yield from ()
    return work()
