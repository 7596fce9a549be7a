"""Tokenising, or other work that blocks, off the event loop, on a few threads of its own, and no more of it at once
than was said.

A thread can't be cancelled: what a departed caller began is counted until it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from meshgate.errors import Unavailable
from services.generation.permits import Permits

_THREADS = 2

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class Tokenising:
    """Runs functions on its threads."""

    def __init__(self, capacity: int, name: str = "tokenising") -> None:
        """`capacity` is how many may wait or run; `name` is that of the threads."""
        self._closed = False
        self._permits = Permits(capacity)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)

    async def run(self, function: Callable[[InputT], OutputT], value: InputT) -> OutputT:
        """function(value). Raises Unavailable: OVERLOADED when too much is in hand, DRAINING once closed."""
        if self._closed:
            raise Unavailable("this server is about to stop", reason="DRAINING", retry_after=1.0)
        release = self._permits.acquire()
        loop = asyncio.get_running_loop()
        work = self._threads.submit(function, value)
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(release))
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Ends the threads once they have done what they are at."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
