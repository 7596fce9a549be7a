"""A long prompt comes when all streams run, and they go on until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from bench.load import Load
from bench.rounds import Plan
from bench.services import rounds
from bench.services.contenders.contender import Contender
from bench.services.rounds import Measurement

LONG = "long"


async def test_what_the_others_hear_while_a_long_prompt_is_read() -> None:
    read = asyncio.Event()
    begun: list[str] = []

    async def stream(caller: int, item: str) -> AsyncIterator[int]:
        begun.append(item)
        if item == LONG:
            await asyncio.sleep(0)
            held.set()
            await read.wait()
        for piece in range(10):
            yield 0
            if held.is_set() and not read.is_set():
                pieces.append(piece)
                if len(pieces) == 3:
                    read.set()
            await asyncio.sleep(0)
        yield 10

    held, pieces = asyncio.Event(), list[int]()
    made = await rounds.interruption(stream, ["a", "b"], 2, LONG, 0.0)
    assert begun.count(LONG) == 1
    assert len(made.before.gaps) >= 16  # eight of each
    assert len(made.during.gaps) >= 3


class Failing:
    """A runner that fails in the n-th slice, the first of which only warms up."""

    def __init__(self, fails: int) -> None:
        self.left = fails
        self.slices: list[float] = []

    async def load(self, items: Sequence[str], callers: int, seconds: float) -> Load:
        self.slices.append(seconds)
        if len(self.slices) == self.left:
            raise ExceptionGroup("callers", [OSError("it hung up")])
        return Load(seconds, 7, [0.1])

    async def close(self) -> None:
        return None


async def test_who_fails_is_left_out_and_the_others_go_on() -> None:
    notes: list[str] = []
    good, bad = Failing(0), Failing(3)
    both = [Contender("good", "Good", (), good), Contender("bad", "Bad", (), bad)]
    found = Measurement(both, Plan(3, 2.0), notes)
    made = await found.load(["a"], 1)
    assert list(made) == ["good"] == list(found.titles)
    assert good.slices == [0.5, 2.0, 2.0, 2.0]  # the first is not counted
    assert [item.load.messages for item in made["good"]] == [7, 7, 7]
    assert len(bad.slices) == 3
    assert notes == ["left out: bad: it failed: OSError: it hung up"]
