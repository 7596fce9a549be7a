"""A bulk stream answers in order, keeps a bounded number of requests in hand, and leaves nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.common.ordered_stream import answer


async def numbers(count: int, read: list[int]) -> AsyncIterator[int]:
    for number in range(count):
        read.append(number)
        yield number


async def test_replies_are_in_order_however_the_work_ends() -> None:
    done = [asyncio.Event() for _ in range(3)]

    async def serve(number: int) -> int:
        if number < 2:
            await done[number + 1].wait()  # the later one ends first
        done[number].set()
        return number

    assert [reply async for reply in answer(numbers(3, []), serve)] == [0, 1, 2]


async def test_requests_are_read_as_replies_are_taken() -> None:
    read: list[int] = []

    async def serve(number: int) -> int:
        return number

    replies: Any = answer(numbers(100, read), serve, in_hand=4)
    assert await anext(replies) == 0
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(read) <= 6
    await replies.aclose()


async def test_an_error_ends_the_stream_and_the_rest() -> None:
    cancelled = asyncio.Event()

    async def serve(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        if number == 2:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return number

    replies = answer(numbers(10, []), serve, in_hand=3)
    assert await anext(replies) == 0
    with pytest.raises(ValueError, match="one"):
        await anext(replies)
    assert cancelled.is_set()
