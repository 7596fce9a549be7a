"""A bidirectional stream that answers in order, with a bounded number of requests in flight.

Several requests run at once, so that they can share batches. A slow reader or a busy model stops the reading of further
requests. HTTP/2 flow control then stops the sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

IN_HAND: Final = 8


async def answer(
    requests: AsyncIterator[RequestT], serve: Callable[[RequestT], Coroutine[Any, Any, ReplyT]], in_hand: int = IN_HAND
) -> AsyncIterator[ReplyT]:
    """Yields serve(request) for each request, in order. The first error ends the stream and cancels the rest."""
    begun: asyncio.Queue[asyncio.Task[ReplyT] | None] = asyncio.Queue()
    places = asyncio.Semaphore(in_hand)
    feeder = asyncio.create_task(_feed(requests, serve, begun, places))
    try:
        while (task := await begun.get()) is not None:
            try:
                yield await task
            finally:
                await _end(task)
            places.release()
        await feeder
    finally:
        await _end(feeder)
        while not begun.empty():
            if (left := begun.get_nowait()) is not None:
                await _end(left)


async def _feed(
    requests: AsyncIterator[RequestT],
    serve: Callable[[RequestT], Coroutine[Any, Any, ReplyT]],
    begun: asyncio.Queue[asyncio.Task[ReplyT] | None],
    places: asyncio.Semaphore,
) -> None:
    """Begins a task for each request, no more than there are places; None says that there are no more."""
    try:
        await places.acquire()
        async for request in requests:
            begun.put_nowait(asyncio.create_task(serve(request)))
            await places.acquire()
    finally:
        begun.put_nowait(None)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancels a task, if it still runs, and waits for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
