"""The threads that run batches in parallel, and the model time of each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from services.batching.worker import Run, Worker

EntryT = TypeVar("EntryT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

CPU_WORKERS: Final = 2
"""The default number of parallel batches on a CPU. One batch on all cores waits, at the end of each matrix product, for
a core that something else occupies at that moment. Two batches on half of the cores each do not wait: on two cores they
ran 14 to 36% more texts.
"""


def default_workers(threads: int) -> int:
    """How many batches to run side by side, where the configuration does not say, with so many threads of a CPU. On
    other devices, where those are 0, one: it has the whole device.
    """
    return min(CPU_WORKERS, max(threads, 1))


class SharedTime:
    """The model time of batches that run in parallel, in seconds.

    With n batches in parallel, model time passes at 1/n of the clock's speed. The model time that passes while a batch
    runs is charged to that batch, so the batches' times add up to the busy time. (The virtual time of processor
    sharing: Demers, Keshav and Shenker, "Analysis and Simulation of a Fair Queueing Algorithm", SIGCOMM 1989.)
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._passed, self._looked = 0.0, clock()
        self._running = 0

    def begin(self) -> float:
        """A batch begins. Returns the argument of `end`."""
        self._look()
        self._running += 1
        return self._passed

    def end(self, began: float) -> float:
        """A batch has ended. Returns its model time in seconds."""
        self._look()
        self._running -= 1
        return self._passed - began

    def _look(self) -> None:
        now = self._clock()
        self._passed += (now - self._looked) / max(self._running, 1)
        self._looked = now


class _Batch(NamedTuple, Generic[EntryT]):
    entries: list[EntryT]
    began: float
    watch: asyncio.TimerHandle


class Ended(NamedTuple, Generic[EntryT, ResultT]):
    """A batch that ran."""

    entries: list[EntryT]
    outcome: Sequence[ResultT] | BaseException
    """The results, or the exception."""
    seconds: float
    """The model time, see SharedTime."""


class Workers(Generic[EntryT, ItemT, ResultT]):
    """Threads that run one batch each. Belongs to one event loop."""

    def __init__(
        self,
        run: Run[ItemT, ResultT],
        clock: Callable[[], float],
        ended: Callable[[Ended[EntryT, ResultT]], object],
    ) -> None:
        """`ended` is called on the loop, once for each batch."""
        self._run = run
        self._time = SharedTime(clock)
        self._ended = ended
        self._workers: list[Worker[ItemT, ResultT]] = []
        self._free: list[int] = []
        """A stack: the thread that ran last runs next, because its data and malloc arena are still in the caches."""
        self._batches: dict[int, _Batch[EntryT]] = {}

    def start(self, count: int) -> None:
        """Starts `count` threads."""
        loop = asyncio.get_running_loop()
        self._workers = [Worker(self._run, loop, partial(self._finished, number)) for number in range(count)]
        self._free = [*reversed(range(count))]
        for worker in self._workers:
            worker.start()

    @property
    def count(self) -> int:
        """The number of threads."""
        return len(self._workers)

    @property
    def free(self) -> bool:
        """Whether another batch can run now."""
        return bool(self._free)

    @property
    def running(self) -> list[EntryT]:
        """The inputs that run now."""
        return [entry for batch in self._batches.values() for entry in batch.entries]

    def put(self, entries: list[EntryT], items: Sequence[ItemT], seconds: float, hung: Callable[[], object]) -> None:
        """Runs a batch on a free thread. `hung` is called when it takes longer than `seconds`."""
        number = self._free.pop()
        watch = asyncio.get_running_loop().call_later(seconds, hung)
        self._batches[number] = _Batch(entries, self._time.begin(), watch)
        self._workers[number].put(items)

    def _finished(self, number: int, outcome: Sequence[ResultT] | BaseException) -> None:
        batch = self._batches.pop(number)
        self._free.append(number)
        batch.watch.cancel()
        self._ended(Ended(batch.entries, outcome, self._time.end(batch.began)))

    async def stop(self, seconds: float, *, failed: bool) -> bool:
        """Ends the threads after their batches. False if one still runs after `seconds`; that thread is abandoned. With
        `failed`, threads that still run the model are not waited for.
        """
        for batch in self._batches.values():
            batch.watch.cancel()
        hang = set(self._batches) if failed else ()
        waits = [worker.stop(0.0 if number in hang else seconds) for number, worker in enumerate(self._workers)]
        return all(await asyncio.gather(*waits))
