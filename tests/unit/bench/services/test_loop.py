"""Callers, and what is told of their streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.services import loop
from bench.services.loop import Pieces

ITEMS = [f"item {number}" for number in range(8)]


async def test_every_caller_calls_and_what_was_begun_is_counted() -> None:
    asked: list[tuple[int, str]] = []
    everybody = asyncio.Event()

    async def call(caller: int, item: str) -> int:
        asked.append((caller, item))
        if len(asked) >= 4:
            everybody.set()
        await everybody.wait()  # answered only once all four have asked
        return 3

    load = await loop.calls(call, ITEMS, 4, 0.001)
    assert sorted(asked[:4]) == [(caller, f"item {caller}") for caller in range(4)]
    assert load.messages == 3 * len(asked)
    assert len(load.latencies) == len(asked)
    assert list(load.latencies) == sorted(load.latencies)


async def test_a_call_that_fails_ends_the_slice() -> None:
    async def call(caller: int, item: str) -> int:
        raise OSError(item)

    with pytest.raises(ExceptionGroup):
        await loop.calls(call, ITEMS, 2, 10.0)


async def test_pieces_and_tokens_are_told_apart() -> None:
    async def stream() -> AsyncIterator[int]:
        for _ in range(3):
            yield 0
        yield 7

    heard = Pieces()
    await loop.hear(stream(), heard)
    assert (len(heard.firsts), len(heard.gaps), heard.tokens) == (1, 2, 7)


def test_gaps_by_the_time_in_which_they_lie() -> None:
    heard = Pieces(gaps=[1.0, 1.0, 4.0, 1.0], ends=[1.0, 2.0, 6.0, 7.0])
    assert heard.within(0.0, 2.5).gaps == [1.0, 1.0]
    assert heard.touching(2.5, 5.0).gaps == [4.0]  # it began before and ended after
    assert heard.touching(2.5, 6.0).gaps == [4.0, 1.0]


def test_quantiles_of_pieces() -> None:
    heard = Pieces(firsts=[3.0, 1.0, 2.0], gaps=[0.3, 0.1])
    assert (heard.first(0.5), heard.first(0.99), heard.gap(0.0)) == (2.0, 3.0, 0.1)
