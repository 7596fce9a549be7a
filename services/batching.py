"""Dynamic batching for encoders: which waiting inputs run together, and the queue that asks.

Theory (after text-embeddings-inference's queue). Inputs are tokenised before they are queued, so their true cost is
known. There is no wait timer: when the model is free, it takes what waits. An idle server adds no delay, and while one
batch runs the next gathers by itself. A batch is padded to its longest input, so its cost is longest x count; `take`
therefore picks inputs of like length, around the one that has waited longest, so that none waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from meshgate.errors import Internal, MeshError, Unavailable

_log = logging.getLogger(__name__)

WINDOW: Final = 512
"""How many of the longest waiting inputs `take` looks at: bounds its cost."""
_GIVE_UP: Final = 8
"""So many inputs that fail alone, one after another, and the model counts as broken."""
_SMOOTHING: Final = 0.2


class Sized(Protocol):
    """An input that waits."""

    @property
    def length(self) -> int:
        """Its tokens: what it costs."""

    @property
    def yields(self) -> bool:
        """Whether it is batch traffic, which lets others go first."""

    @property
    def since(self) -> float:
        """When it came, in seconds on the clock of `take`'s now."""


def take(waiting: Sequence[Sized], budget: int, now: float, patience: float) -> list[int]:
    """The indices of the inputs to run together, at least one if any waits.

    Their padded cost, longest x count, is at most `budget` tokens, unless one input alone is more, and at most half of
    it is padding. The longest waiting of the interactive ones is always among them; batch traffic that has waited
    `patience` seconds counts as interactive.
    """
    if not waiting:
        return []
    order = sorted(range(len(waiting)), key=lambda i: (_rank(waiting[i], now, patience), waiting[i].since, i))
    by_length = sorted(order[:WINDOW], key=lambda i: waiting[i].length)
    lengths = [waiting[i].length for i in by_length]
    low, high = _grow(lengths, by_length.index(order[0]), budget)
    return by_length[low : high + 1]


def _rank(entry: Sized, now: float, patience: float) -> bool:
    return entry.yields and now - entry.since < patience


def _grow(lengths: Sequence[int], anchor: int, budget: int) -> tuple[int, int]:
    """The widest run of sorted `lengths` around `anchor` that stays in budget and wastes at most half. Inclusive."""
    low = high = anchor
    total = lengths[anchor]
    while True:
        shorter = low > 0 and _fits(lengths[high], high - low + 2, total + lengths[low - 1], budget)
        longer = high + 1 < len(lengths) and _fits(lengths[high + 1], high - low + 2, total + lengths[high + 1], budget)
        if longer and not (shorter and lengths[anchor] - lengths[low - 1] < lengths[high + 1] - lengths[anchor]):
            high += 1
            total += lengths[high]
        elif shorter:
            low -= 1
            total += lengths[low]
        else:
            return low, high


def _fits(longest: int, count: int, total: int, budget: int) -> bool:
    padded = longest * count
    return padded <= budget and padded <= 2 * total


ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(eq=False, slots=True)
class _Entry(Generic[ItemT, ResultT]):
    item: ItemT
    length: int
    yields: bool
    since: float
    done: asyncio.Future[ResultT]


Run = Callable[[Sequence[ItemT]], Sequence[ResultT]]
"""Runs a batch on the model's thread; results are index-aligned."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a batcher may hold. Tokens are those of the inputs, without padding."""

    batch_tokens: int
    queue_tokens: int
    patience_seconds: float = 1.0


class Batcher(Generic[ItemT, ResultT]):
    """The queue before one model and the one thread that runs it. For one event loop."""

    def __init__(
        self,
        run: Run[ItemT, ResultT],
        bounds: Bounds,
        failed: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failed` is set when the model can't go on; every call fails from then on."""
        self.failed = failed
        self._run = run
        self._bounds = bounds
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: list[_Entry[ItemT, ResultT]] = []
        self._held = 0
        self._room = asyncio.Condition()
        self._arrived = asyncio.Event()
        self._rate = float(bounds.batch_tokens)
        self._misses = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to serve."""
        self._task = asyncio.create_task(self._serve())

    async def submit(
        self, items: Sequence[ItemT], lengths: Sequence[int], *, yields: bool = False, wait: bool = False
    ) -> list[ResultT]:
        """Runs `items`, whose tokens are `lengths`; a cancelled caller's inputs are not run.

        Raises Unavailable (OVERLOADED) when the queue is full, unless `wait`, which waits for room; Unavailable
        (DRAINING, MODEL_FAILED); or Internal for an item that the model can't do.
        """
        weight = sum(lengths)
        await self._admit(weight, wait)
        loop, now = asyncio.get_running_loop(), self._clock()
        entries = [
            _Entry[ItemT, ResultT](item, length, yields, now, loop.create_future())
            for item, length in zip(items, lengths, strict=True)
        ]
        try:
            self._waiting += entries
            self._arrived.set()
            return await asyncio.gather(*(entry.done for entry in entries))
        finally:
            for entry in entries:
                entry.done.cancel()
            await self._release(weight)

    async def _admit(self, weight: int, wait: bool) -> None:
        self._check_open()
        if not wait and not self._fits(weight):
            raise Unavailable("the queue is full", reason="OVERLOADED", retry_after=self._drain_seconds())
        async with self._room:
            await self._room.wait_for(lambda: self._fits(weight) or self._stopping or self.failed.is_set())
            self._check_open()
            self._held += weight

    def _fits(self, weight: int) -> bool:
        """An empty queue takes any call, so that none is too large for ever."""
        return self._held == 0 or self._held + weight <= self._bounds.queue_tokens

    def _check_open(self) -> None:
        if self._stopping:
            raise Unavailable("the service is draining", reason="DRAINING", retry_after=1.0)
        if self.failed.is_set():
            raise Unavailable("the model failed", reason="MODEL_FAILED", retry_after=5.0)

    async def _release(self, weight: int) -> None:
        self._held -= weight
        async with self._room:
            self._room.notify_all()

    def _drain_seconds(self) -> float:
        return min(30.0, max(0.05, self._held / self._rate))

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            self._waiting = [entry for entry in self._waiting if not entry.done.done()]
            taken = take(self._waiting, self._bounds.batch_tokens, self._clock(), self._bounds.patience_seconds)
            batch = [self._waiting[index] for index in taken]
            for index in sorted(taken, reverse=True):
                del self._waiting[index]
            if not self._waiting:
                self._arrived.clear()
            if batch:
                await self._run_batch(batch)

    async def _run_batch(self, batch: Sequence[_Entry[ItemT, ResultT]]) -> None:
        start = self._clock()
        results = await self._attempt(batch)
        if results is None and len(batch) > 1:  # one bad input fails alone
            for entry in batch:
                await self._run_batch([entry])
            return
        for entry, result in zip(batch, results or (), strict=False):
            if not entry.done.done():
                entry.done.set_result(result)
        spent = max(self._clock() - start, 1e-6)
        self._rate += _SMOOTHING * (sum(entry.length for entry in batch) / spent - self._rate)

    async def _attempt(self, batch: Sequence[_Entry[ItemT, ResultT]]) -> Sequence[ResultT] | None:
        """The results, or None where the batch failed; a lone input is then told."""
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._run, [entry.item for entry in batch])
        except Exception as error:  # whatever a model raises, its neighbours must not suffer
            _log.exception("a batch failed", extra={"inputs": len(batch)})
            if len(batch) == 1:
                self._missed(batch[0], error)
            return None
        self._misses = 0
        return results

    def _missed(self, entry: _Entry[ItemT, ResultT], error: Exception) -> None:
        if not entry.done.done():
            known = isinstance(error, MeshError)
            entry.done.set_exception(error if known else Internal("the model could not do this input"))
        self._misses += 1
        if self._misses >= _GIVE_UP:
            self._fail()

    def _fail(self) -> None:
        self.failed.set()
        self._drop(Unavailable("the model failed", reason="MODEL_FAILED", retry_after=5.0))

    def _drop(self, why: Unavailable) -> None:
        for entry in self._waiting:
            if not entry.done.done():
                entry.done.set_exception(why)
        self._waiting.clear()

    async def stop(self, grace: float) -> None:
        """Takes nothing new, lets what waits finish for `grace` seconds, then drops it. Leaves no task, no thread."""
        self._stopping = True
        async with self._room:
            self._room.notify_all()
        try:
            async with asyncio.timeout(grace), self._room:
                await self._room.wait_for(lambda: self._held <= 0)
        except TimeoutError:
            _log.warning("dropped what did not finish in time", extra={"inputs": len(self._waiting)})
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._drop(Unavailable("the service stopped", reason="DRAINING", retry_after=1.0))
        await asyncio.to_thread(self._thread.shutdown, True, cancel_futures=True)
