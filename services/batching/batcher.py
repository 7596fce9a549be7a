"""The queue before one model: takes calls in, makes batches of their inputs, and tells each call what came of its own.

No task runs here. The batcher is moved on by two events, a call that comes and a batch that ends, both on one loop.
Batches run side by side where there is more than one worker; what is in line goes to whichever is free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Generic, cast

from meshgate.errors import DeadlineExceeded, Internal, MeshError
from services.batching import error_kinds
from services.batching.admission import Admission
from services.batching.batch_queue import BatchQueue
from services.batching.bounds import Bounds, Counts
from services.batching.call import Call, Entry
from services.batching.error_kinds import ErrorClassifier, Fault
from services.batching.latency_model import LatencyModel
from services.batching.tenant_capacity import Refusal
from services.batching.worker import ItemT, ResultT, Run
from services.batching.workers import Ended, Workers
from services.common import drain_errors
from services.common.caller import CallerIdentity

_log = logging.getLogger(__name__)

_GIVE_UP: Final = 8
"""So many inputs that fail alone, with none between that succeeds, and the model itself is in doubt."""
_RECOVERY: Final = 64
"""After a batch that was too large, each that is not adds this part of the whole budget to what is left of it."""
_WORTH: Final = 256
"""Tokens that are worth a batch of their own."""
_JOIN_SECONDS: Final = 5.0


class Permit(Generic[ItemT, ResultT]):
    """A call's place, from before its inputs are read until it has its answer. Used with `async with`."""

    __slots__ = ("_batcher", "_tenant", "_wait", "who")

    def __init__(self, batcher: Batcher[ItemT, ResultT], who: CallerIdentity, *, wait: bool) -> None:
        self.who = who
        """Whose call it is."""
        self._batcher = batcher
        self._tenant = who.tenant
        self._wait = wait

    @property
    def waits(self) -> bool:
        """Whether it waits where there is no place."""
        return self._wait

    async def __aenter__(self) -> Permit[ItemT, ResultT]:
        """Raises Unavailable as Batcher.submit does."""
        await self._batcher.admission.enter(self._tenant, wait=self._wait)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher.admission.leave(self._tenant)

    async def run(
        self, items: Sequence[ItemT], lengths: Sequence[int], *, yields: bool = False, remaining: float | None = None
    ) -> list[ResultT]:
        """As Batcher.submit, which explains it."""
        admission, tenant, weight = self._batcher.admission, self._tenant, sum(lengths)
        await admission.take(tenant, weight, yields=yields, wait=self._wait, remaining=remaining)
        try:
            return await self._batcher.answer(tenant, items, lengths, yields=yields, remaining=remaining)
        finally:
            admission.give(tenant, weight, yields=yields)


class Batcher(Generic[ItemT, ResultT]):
    """The queue before one model and the threads that run it. For one event loop."""

    def __init__(
        self,
        run: Run[ItemT, ResultT],
        bounds: Bounds,
        failed: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
        classify: ErrorClassifier = error_kinds.classify,
        sound: ItemT | None = None,
    ) -> None:
        """`failed` is set when the model can't go on; every call fails from then on. `classify` says whose fault an
        error of the model is. `sound` is an input that a sound model can do: it is tried when the model is in doubt,
        so that a caller with bad inputs can't end the process. Without one, a model in doubt is a broken one.
        """
        self.failed = failed
        self.counts = Counts()
        self._pace = LatencyModel(bounds.batch_tokens)
        self.admission = Admission(bounds, self._pace, self.counts)
        self._bounds = bounds
        self._clock = clock
        self._classify = classify
        self._sound = sound
        self._trial: Entry[ItemT, ResultT] | None = None
        self._line: BatchQueue[Entry[ItemT, ResultT]] = BatchQueue()
        self._budget = bounds.batch_tokens
        self._halves: list[list[Entry[ItemT, ResultT]]] = []
        """Of batches that failed: they run next."""
        self._workers = Workers[Entry[ItemT, ResultT], ItemT, ResultT](run, clock, self._finished)
        self._misses = 0
        self._due = False

    def start(self, workers: int = 1) -> None:
        """Begins to serve, with so many batches at a time."""
        self._loop = asyncio.get_running_loop()
        self._workers.start(workers)

    async def stop(self, grace: float) -> None:
        """Takes nothing new, lets what waits finish for `grace` seconds, then drops it. Leaves no task; and no thread,
        unless one hangs in the model.
        """
        self.admission.close(drain_errors.draining)
        try:
            await asyncio.wait_for(self.admission.empty.wait(), grace)
        except TimeoutError:
            _log.warning("dropped what did not finish in time", extra={"calls": self.admission.calls.held})
        self._drop((), drain_errors.draining)
        if not await self._workers.stop(_JOIN_SECONDS, failed=self.failed.is_set()):
            _log.warning("the model still runs")

    async def submit(
        self,
        items: Sequence[ItemT],
        lengths: Sequence[int],
        *,
        tenant: str = "",
        yields: bool = False,
        wait: bool = False,
        remaining: float | None = None,
    ) -> list[ResultT]:
        """Runs `items`, whose tokens are `lengths`; a cancelled caller's inputs are not run.

        `yields` marks batch traffic; `remaining` is how many seconds the caller has. Raises Unavailable (OVERLOADED)
        when there is no place, unless `wait`, which waits for one; DeadlineExceeded when the time won't be enough;
        Unavailable (DRAINING, MODEL_FAILED); or Internal for an item that the model can't do.
        """
        async with self.permit(tenant, wait=wait) as permit:
            return await permit.run(items, lengths, yields=yields, remaining=remaining)

    def permit(self, tenant: str = "", subject: str = "", *, wait: bool = False) -> Permit[ItemT, ResultT]:
        """A place for a call whose inputs are yet to be tokenised."""
        return Permit(self, CallerIdentity(tenant, subject), wait=wait)

    async def answer(
        self,
        tenant: str,
        items: Sequence[ItemT],
        lengths: Sequence[int],
        *,
        yields: bool,
        remaining: float | None,
    ) -> list[ResultT]:
        """For Permit: queues what was let in, and waits for it."""
        expires = self._clock() + remaining if remaining is not None else float("inf")
        call = Call[ItemT, ResultT](tenant, len(items), expires, self._loop.create_future())
        entries = [Entry(call, index, item, lengths[index]) for index, item in enumerate(items)]
        self._line.add(tenant, entries, yields=yields)
        self._wake()
        try:
            await call.done
        finally:
            if call.left:
                call.done.cancel()
                self._line.withdraw(tenant, call.left, yields=yields)
        return cast("list[ResultT]", call.results)  # each was filled in, or an error was raised

    # A batch, from its making to its end.

    def _wake(self) -> None:
        """Makes a batch once all who came in this turn of the loop are in line."""
        if not self._due and self._workers.free:
            self._due = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._due = False
        while self._workers.free and not self.failed.is_set() and (batch := self._batch()):
            self._workers.put(batch, [entry.item for entry in batch], self._bounds.hang_seconds, self._hung)

    def _batch(self) -> list[Entry[ItemT, ResultT]]:
        """The next one; empty if nobody waits."""
        while batch := self._pick():
            if present := self._present(batch):
                return present
        return []

    def _pick(self) -> list[Entry[ItemT, ResultT]]:
        return self._halves.pop() if self._halves else self._line.next(self._part())

    def _part(self) -> int:
        """The most tokens of the next batch: no more than each worker's part of what is in hand, or one has a long
        batch, for whose callers it takes long, and the others what comes by and by.
        """
        workers = self._workers.count
        return self._budget if workers < 2 else min(self._budget, max(_WORTH, self.admission.tokens.held // workers))

    def _present(self, batch: list[Entry[ItemT, ResultT]]) -> list[Entry[ItemT, ResultT]]:
        """Those that somebody waits for, in time."""
        now = self._clock()
        for entry in batch:
            if entry.call.expires <= now and not entry.gone:
                self.counts.late += 1
                entry.call.done.set_exception(DeadlineExceeded("the time is over"))
        return [entry for entry in batch if not entry.gone]

    def _finished(self, ended: Ended[Entry[ItemT, ResultT], ResultT]) -> None:
        batch, outcome, seconds = ended
        if self.failed.is_set():
            return
        if isinstance(outcome, BaseException):
            self._faulted(batch, outcome)
        elif len(outcome) != len(batch):
            _log.error("the model's results are not as many as its inputs", extra={"inputs": len(batch)})
            self.fail(batch)
        else:
            self._deliver(batch, outcome, seconds)
        self._next()

    def _deliver(self, batch: Sequence[Entry[ItemT, ResultT]], results: Sequence[ResultT], seconds: float) -> None:
        for entry, result in zip(batch, results, strict=True):
            entry.call.fill(entry.index, result)
        self._misses = 0
        lengths = [entry.length for entry in batch]
        cost, tokens = max(lengths) * len(lengths), sum(lengths)
        self._pace.learn(cost, seconds)
        whole = self._bounds.batch_tokens
        self._budget = min(whole, self._budget + whole // _RECOVERY + 1)
        self.counts.add(len(batch), tokens, cost - tokens)

    def _faulted(self, batch: list[Entry[ItemT, ResultT]], error: BaseException) -> None:
        """Ends a lone input, or the model; otherwise the halves of the batch run next."""
        fault = self._classify(error)
        facts = {"inputs": len(batch), "fault": fault.name, "error": type(error).__name__}
        _log.error("a batch failed", extra=facts, exc_info=error)
        error.with_traceback(None)  # its frames keep the batch's memory
        if fault is Fault.MODEL:
            self.fail(batch)
            return
        if fault is Fault.MEMORY:
            self.counts.memory_splits += 1
            cost = max(entry.length for entry in batch) * len(batch)
            self._budget = max(1, min(self._budget, cost) // 2)
        if len(batch) == 1:
            self._missed(batch[0], error)
            return
        middle = len(batch) // 2
        self._halves += [batch[middle:], batch[:middle]]

    def _missed(self, entry: Entry[ItemT, ResultT], error: BaseException) -> None:
        self.counts.failed_inputs += 1
        if not entry.gone:
            known = isinstance(error, MeshError)
            entry.call.done.set_exception(error if known else Internal("the model could not do this input"))
        self._misses += 1
        if entry is self._trial or (self._misses >= _GIVE_UP and self._sound is None):
            self.fail()
        elif self._misses == _GIVE_UP and self._sound is not None:
            self._try(self._sound)

    def _try(self, sound: ItemT) -> None:
        """Runs next what only a broken model fails."""
        self._trial = Entry(Call[ItemT, ResultT]("", 1, float("inf"), self._loop.create_future()), 0, sound, 1)
        self._trial.call.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._halves.append([self._trial])

    # The end of the model.

    def _hung(self) -> None:
        _log.error("the model hangs", extra={"seconds": self._bounds.hang_seconds})
        self.fail()

    def fail(self, batch: Sequence[Entry[ItemT, ResultT]] = ()) -> None:
        """The model can't go on, be there batches or not. All who wait fail at once: those of `batch`, which ended just
        now, in other batches, and in line.
        """
        self.failed.set()
        self.admission.close(drain_errors.model_failed)
        self._drop(batch, drain_errors.model_failed)

    def _drop(self, batch: Sequence[Entry[ItemT, ResultT]], why: Refusal) -> None:
        halves = (entry for half in self._halves for entry in half)
        waiting = [*batch, *self._workers.running, *halves, *self._line.clear()]
        self._halves.clear()
        for entry in waiting:
            if not entry.gone:
                entry.call.done.set_exception(why())
