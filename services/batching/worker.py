"""A thread of the model. It does one job after another and hands what came of each to the event loop.

It is a daemon, and not of an executor's: the interpreter waits for those at exit, and a model that hangs would keep the
process from ending, which is the one thing that is left to do with it.
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
"""Runs a batch on a thread of the model; results are index-aligned."""


class Worker(Generic[ItemT, ResultT]):
    """One thread that runs a model."""

    def __init__(
        self,
        run: Run[ItemT, ResultT],
        loop: asyncio.AbstractEventLoop,
        finished: Callable[[Sequence[ResultT] | BaseException], object],
    ) -> None:
        """`finished` is called on the loop, once for each `put`, with the results or what was raised."""
        self._run = run
        self._loop = loop
        self._finished = finished
        self._jobs: SimpleQueue[Sequence[ItemT] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, batch: Sequence[ItemT]) -> None:
        """Runs a batch after those before it."""
        self._jobs.put(batch)

    async def stop(self, seconds: float) -> bool:
        """Ends the thread after its last job; False if it is still at that after `seconds`, and is left."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while (batch := self._jobs.get()) is not None:
            told = self._tell(self._attempt(batch))
            del batch  # its memory is not kept while nothing runs
            if not told:
                return

    def _attempt(self, batch: Sequence[ItemT]) -> Sequence[ResultT] | BaseException:
        try:
            return self._run(batch)
        except BaseException as error:  # whatever it is, those who wait are told
            return error

    def _tell(self, outcome: Sequence[ResultT] | BaseException) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._finished, outcome)
        except RuntimeError:  # the loop has closed, and nobody waits
            return False
        return True
