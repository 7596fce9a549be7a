"""Tokenising, or other work that blocks, off the event loop, on a few threads of its own, and no more of it at once
than was said.

A thread can't be cancelled: what a departed caller began is counted until it is done. What waits for a thread when they
end is dropped, and its caller told: to a task that nobody cancelled, the end of its future looks as if somebody had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from meshgate.errors import MeshError
from meshgate.rpc.call.cancellation import caller_left
from services.common.drain_errors import draining
from services.generation.serving.weighted_semaphore import WeightedSemaphore

_THREADS = 2

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class BoundedThreads:
    """Runs functions on its threads."""

    def __init__(self, capacity: int, name: str = "tokenising") -> None:
        """`capacity` is how many may wait or run; `name` is that of the threads."""
        self._closed: Callable[[], MeshError] | None = None
        self._permits = WeightedSemaphore(capacity)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)

    async def run(self, function: Callable[[InputT], OutputT], value: InputT) -> OutputT:
        """function(value). Raises Unavailable (OVERLOADED) when too much is in hand, and what `close` says."""
        self._check_open()
        release = self._permits.acquire()
        loop = asyncio.get_running_loop()
        work = self._threads.submit(function, value)
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(release))
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if not caller_left():
                self._check_open()
            raise

    def close(self, why: Callable[[], MeshError] | None = None) -> None:
        """Ends the threads once they have done what they are at. Those who wait, or come, are told `why`, or that the
        server stops.
        """
        self._closed = why or draining
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed()
