"""The queue before one model: it admits calls, makes batches of their inputs, and gives each call its results.

No task runs here. Two events drive the batcher, both on one event loop: a call arrives, or a batch ends. With several
workers, batches run in parallel; each queued input goes to the next free worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, cast

from meshgate.errors import DeadlineExceeded, Internal, MeshError
from services.batching import error_kinds
from services.batching.admission import Admission
from services.batching.batch_queue import BatchQueue
from services.batching.bounds import Bounds, Counts
from services.batching.call import Call, Entry
from services.batching.error_kinds import ErrorClassifier, Fault
from services.batching.latency_model import LatencyModel
from services.batching.permit import Permit
from services.batching.tenant_capacity import Refusal
from services.batching.worker import ItemT, ResultT, Run
from services.batching.workers import Ended, Workers
from services.common import drain_errors
from services.common.caller import CallerIdentity

_log = logging.getLogger(__name__)

_GIVE_UP: Final = 8
"""Consecutive inputs that fail alone before the batcher suspects the model itself."""
_RECOVERY: Final = 64
"""After a batch that was too large, each successful batch restores 1/64 of the full token budget."""
_WORTH: Final = 256
"""The minimum token budget of a batch when several workers share the queue."""
_JOIN_SECONDS: Final = 5.0


class Batcher(Generic[ItemT, ResultT]):
    """The queue before one model, and the threads that run it. Belongs to one event loop."""

    def __init__(
        self,
        run: Run[ItemT, ResultT],
        bounds: Bounds,
        failed: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
        classify: ErrorClassifier = error_kinds.classify,
        sound: ItemT | None = None,
    ) -> None:
        """`failed` is set when the model is broken; every call fails from then on. `classify` finds the cause of a
        model's error. `sound` is an input that a sound model can run. The batcher tries it before it declares the model
        broken, so that a caller with bad inputs can't end the process. Without `sound` there is no such trial.
        """
        self.failed = failed
        self.counts = Counts()
        self._latency = LatencyModel(bounds.batch_tokens)
        self.admission = Admission(bounds, self._latency, self.counts)
        self._bounds = bounds
        self._clock = clock
        self._classify = classify
        self._sound = sound
        self._trial: Entry[ItemT, ResultT] | None = None
        self._queue: BatchQueue[Entry[ItemT, ResultT]] = BatchQueue()
        self._budget = bounds.batch_tokens
        self._halves: list[list[Entry[ItemT, ResultT]]] = []
        """Halves of failed batches; they run next."""
        self._workers = Workers[Entry[ItemT, ResultT], ItemT, ResultT](run, clock, self._finished)
        self._misses = 0
        self._due = False

    def start(self, workers: int = 1) -> None:
        """Starts to serve, with `workers` batches in parallel."""
        self._loop = asyncio.get_running_loop()
        self._workers.start(workers)

    async def stop(self, grace: float) -> None:
        """Refuses new calls, lets queued calls finish for `grace` seconds, then fails them. Leaves no task, and no
        thread unless one hangs in the model.
        """
        self.admission.close(drain_errors.draining)
        try:
            await asyncio.wait_for(self.admission.empty.wait(), grace)
        except TimeoutError:
            _log.warning("dropped calls that did not finish in time", extra={"calls": self.admission.calls.held})
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
        """Runs `items` and returns their results in order. `lengths` are their tokens. Inputs of a cancelled call do
        not run.

        `yields` marks batch traffic. `remaining` is the time to the deadline in seconds. With `wait` the call waits for
        a free slot. Raises Unavailable (OVERLOADED) when no slot is free, Unavailable (DRAINING, MODEL_FAILED),
        DeadlineExceeded when the time does not suffice, and Internal for an item that the model fails to run.
        """
        async with self.permit(tenant, wait=wait) as permit:
            return await permit.run(items, lengths, yields=yields, remaining=remaining)

    def permit(self, tenant: str = "", subject: str = "", *, wait: bool = False) -> Permit[ItemT, ResultT]:
        """The slot of a call whose inputs are not tokenised yet."""
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
        """Queues admitted inputs and awaits their results. For Permit."""
        expires = self._clock() + remaining if remaining is not None else float("inf")
        call = Call[ItemT, ResultT](tenant, len(items), expires, self._loop.create_future())
        entries = [Entry(call, index, item, lengths[index]) for index, item in enumerate(items)]
        self._queue.add(tenant, entries, yields=yields)
        self._wake()
        try:
            await call.done
        finally:
            if call.left:
                call.done.cancel()
                self._queue.withdraw(tenant, call.left, yields=yields)
        return cast("list[ResultT]", call.results)  # each was filled in, or an error was raised

    # The life of a batch.

    def _wake(self) -> None:
        """Makes a batch once all calls that arrive in this iteration of the loop are queued."""
        if not self._due and self._workers.free:
            self._due = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._due = False
        while self._workers.free and not self.failed.is_set() and (batch := self._batch()):
            self._workers.put(batch, [entry.item for entry in batch], self._bounds.hang_seconds, self._hung)

    def _batch(self) -> list[Entry[ItemT, ResultT]]:
        """The next batch; empty if nothing is queued."""
        while batch := self._pick():
            if present := self._present(batch):
                return present
        return []

    def _pick(self) -> list[Entry[ItemT, ResultT]]:
        return self._halves.pop() if self._halves else self._queue.next(self._share())

    def _share(self) -> int:
        """The maximum number of tokens in the next batch: at most each worker's part of the tokens in progress.
        Otherwise one worker would get a long batch, with long latency, and the others only later arrivals.
        """
        workers = self._workers.count
        return self._budget if workers < 2 else min(self._budget, max(_WORTH, self.admission.tokens.held // workers))

    def _present(self, batch: list[Entry[ItemT, ResultT]]) -> list[Entry[ItemT, ResultT]]:
        """The inputs whose calls still wait and are within their deadlines."""
        now = self._clock()
        for entry in batch:
            if entry.call.expires <= now and not entry.gone:
                self.counts.late += 1
                entry.call.done.set_exception(DeadlineExceeded("deadline exceeded while queued"))
        return [entry for entry in batch if not entry.gone]

    def _finished(self, ended: Ended[Entry[ItemT, ResultT], ResultT]) -> None:
        batch, outcome, seconds = ended
        if self.failed.is_set():
            return
        if isinstance(outcome, BaseException):
            self._faulted(batch, outcome)
        elif len(outcome) != len(batch):
            _log.error("the model returned a wrong number of results", extra={"inputs": len(batch)})
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
        self._latency.learn(cost, seconds)
        whole = self._bounds.batch_tokens
        self._budget = min(whole, self._budget + whole // _RECOVERY + 1)
        self.counts.add(len(batch), tokens, cost - tokens)

    def _faulted(self, batch: list[Entry[ItemT, ResultT]], error: BaseException) -> None:
        """Fails a lone input, or the model. Otherwise the halves of the batch run next."""
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
            entry.call.done.set_exception(error if known else Internal("the model failed to run this input"))
        self._misses += 1
        if entry is self._trial or (self._misses >= _GIVE_UP and self._sound is None):
            self.fail()
        elif self._misses == _GIVE_UP and self._sound is not None:
            self._try(self._sound)

    def _try(self, sound: ItemT) -> None:
        """Runs the sound input next: only a broken model fails it."""
        self._trial = Entry(Call[ItemT, ResultT]("", 1, float("inf"), self._loop.create_future()), 0, sound, 1)
        self._trial.call.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._halves.append([self._trial])

    # The failure of the model.

    def _hung(self) -> None:
        _log.error("the model hangs", extra={"seconds": self._bounds.hang_seconds})
        self.fail()

    def fail(self, batch: Sequence[Entry[ItemT, ResultT]] = ()) -> None:
        """Declares the model broken, with or without running batches. All calls fail at once: those of `batch`, which
        ended just now, those of other batches, and queued ones.
        """
        self.failed.set()
        self.admission.close(drain_errors.model_failed)
        self._drop(batch, drain_errors.model_failed)

    def _drop(self, batch: Sequence[Entry[ItemT, ResultT]], why: Refusal) -> None:
        halves = (entry for half in self._halves for entry in half)
        waiting = [*batch, *self._workers.running, *halves, *self._queue.clear()]
        self._halves.clear()
        for entry in waiting:
            if not entry.gone:
                entry.call.done.set_exception(why())
