"""A thread that runs the model. It runs one batch after the other and passes each outcome to the event loop.

It is a daemon thread and not a thread of an executor. The interpreter waits for an executor's threads at exit, so a
model that hangs would keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

Run = Callable[[Sequence[ItemT]], Sequence[ResultT]]
"""Runs a batch on a worker thread; result i belongs to input i."""


class Worker(Generic[ItemT, ResultT]):
    """One thread that runs a model."""

    def __init__(
        self,
        run: Run[ItemT, ResultT],
        loop: asyncio.AbstractEventLoop,
        finished: Callable[[Sequence[ResultT] | BaseException], object],
    ) -> None:
        """`finished` is called on the loop, once for each `put`, with the results or the exception."""
        self._run = run
        self._loop = loop
        self._finished = finished
        self._jobs: SimpleQueue[Sequence[ItemT] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, batch: Sequence[ItemT]) -> None:
        """Queues a batch behind the earlier ones."""
        self._jobs.put(batch)

    async def stop(self, seconds: float) -> bool:
        """Ends the thread after its last batch. False if it still runs after `seconds`; it is then abandoned."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while (batch := self._jobs.get()) is not None:
            reported = self._report(self._attempt(batch))
            del batch  # frees its memory before the next wait
            if not reported:
                return

    def _attempt(self, batch: Sequence[ItemT]) -> Sequence[ResultT] | BaseException:
        try:
            return self._run(batch)
        except BaseException as error:  # reported to the callers, whatever it is
            return error

    def _report(self, outcome: Sequence[ResultT] | BaseException) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._finished, outcome)
        except RuntimeError:  # the loop has closed, so no call waits
            return False
        return True
