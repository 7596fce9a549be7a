"""Requests without a token are read a few at a time, and fewer of one address."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.open_methods import FairTurns
from meshgate import errors


class Reader:
    """Reads for as long as it is wanted."""

    def __init__(self, turns: FairTurns, address: str) -> None:
        self.began = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._read(turns, address))

    async def _read(self, turns: FairTurns, address: str) -> None:
        async with turns.turn(address):
            self.began.set()
            await self.end.wait()


async def reading(readers: list[Reader]) -> list[bool]:
    for _ in range(5):
        await asyncio.sleep(0)
    return [reader.began.is_set() for reader in readers]


async def finish(readers: list[Reader]) -> None:
    for reader in readers:
        reader.end.set()
    await asyncio.gather(*(reader.task for reader in readers))


async def test_an_address_has_its_part_of_the_turns() -> None:
    turns = FairTurns(most=3, most_each=2, waiting_each=10)
    readers = [Reader(turns, address) for address in "aaabc"]
    assert await reading(readers) == [True, True, False, True, False]
    readers[0].end.set()
    assert sum(await reading(readers)) == 4
    await finish(readers)


async def test_one_too_many_of_an_address_is_refused_and_others_are_not() -> None:
    turns = FairTurns(most=1, most_each=1, waiting_each=2)
    readers = [Reader(turns, "a") for _ in range(3)]
    await reading(readers)
    with pytest.raises(errors.LimitExceeded):
        async with turns.turn("a"):
            raise AssertionError("read")
    other = Reader(turns, "b")
    await finish([*readers, other])
    async with turns.turn("a"):
        pass


async def test_who_leaves_while_waiting_leaves_nothing_behind() -> None:
    turns = FairTurns(most=1, most_each=1, waiting_each=1)
    readers = [Reader(turns, "a"), Reader(turns, "a")]
    await reading(readers)
    readers[1].task.cancel()
    await asyncio.gather(readers[1].task, return_exceptions=True)
    again = Reader(turns, "a")
    await finish([readers[0], again])
    assert not turns._asked and not turns._each
