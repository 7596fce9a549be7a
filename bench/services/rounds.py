"""Every contender in turn, again and again, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from bench import process
from bench.rounds import Plan, Round, Rounds
from bench.services import loop
from bench.services.contenders.contender import Contender, Streamed
from bench.services.loop import Pieces

RoundT = TypeVar("RoundT")

_WARM: Final = 0.25
"""Of a slice, before the first round."""


_RUNNING: Final = 8
"""Pieces of each stream after which it runs."""
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True)
class StreamRound:
    """One slice of one contender's streams."""

    pieces: Pieces
    cpu: float
    """Seconds of CPU that the contender's own processes took."""


class Interruption(NamedTuple):
    """Streams before a long prompt and while it was read."""

    before: Pieces
    during: Pieces
    first: float
    """Seconds until the long prompt's first piece."""


class Measurement:
    """Contenders that take turns. One that fails is left out from then on."""

    def __init__(self, contenders: Sequence[Contender], plan: Plan, notes: list[str]) -> None:
        """`notes` gets a line for each that fails."""
        self.contenders = list(contenders)
        self._plan = plan
        self._notes = notes

    @property
    def titles(self) -> Mapping[str, str]:
        """Name to title."""
        return {item.name: item.title for item in self.contenders}

    @property
    def streaming(self) -> list[Contender]:
        """Those that answer piece by piece, too."""
        return [item for item in self.contenders if isinstance(item.runner, Streamed)]

    async def load(self, items: Sequence[str], callers: int) -> Rounds:
        """What each does of so many callers' work."""

        async def one(item: Contender, seconds: float) -> Round:
            pids = process.family(item.pids)
            before = process.cpu_seconds(pids)
            done = await item.runner.load(items, callers, seconds)
            return Round(done, process.cpu_seconds(pids) - before, process.resident_bytes(pids))

        return await self._rounds(self.contenders, one)

    async def streams(self, items: Sequence[str], callers: int) -> Mapping[str, Sequence[StreamRound]]:
        """The streams of those that have any."""

        async def one(item: Contender, seconds: float) -> StreamRound:
            pids = process.family(item.pids)
            before = process.cpu_seconds(pids)
            pieces = await loop.streams(_pieces(item), items, callers, seconds)
            return StreamRound(pieces, process.cpu_seconds(pids) - before)

        return await self._rounds(self.streaming, one)

    async def interruptions(
        self, items: Sequence[str], callers: int, longs: Iterator[str]
    ) -> Mapping[str, Sequence[Interruption]]:
        """Streams that run while a long prompt arrives, another one each time."""

        async def one(item: Contender, seconds: float) -> Interruption:
            return await interruption(_pieces(item), items, callers, next(longs), seconds)

        return await self._rounds(self.streaming, one)

    async def _rounds(
        self, contenders: Sequence[Contender], one: Callable[[Contender, float], Awaitable[RoundT]]
    ) -> dict[str, list[RoundT]]:
        rounds: dict[str, list[RoundT]] = {item.name: [] for item in contenders}
        for number in range(-1, self._plan.rounds):
            for item in [item for item in contenders if item in self.contenders]:
                try:
                    made = await one(item, self._plan.seconds * (_WARM if number < 0 else 1.0))
                except Exception as error:
                    self._leave_out(item, error)
                    del rounds[item.name]
                else:
                    rounds[item.name] += [made] * (number >= 0)  # not counted: what is only slow at first
        return rounds

    def _leave_out(self, item: Contender, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        self.contenders.remove(item)
        self._notes.append(f"left out: {item.name}: it failed: {type(error).__name__}: {error}")


def _pieces(item: Contender) -> loop.Stream:
    if not isinstance(item.runner, Streamed):
        raise TypeError(f"{item.name} has no streams")
    return item.runner.pieces


async def interruption(
    stream: loop.Stream, items: Sequence[str], callers: int, long: str, seconds: float
) -> Interruption:
    """Streams of so many callers, to which another comes with a long prompt once all run and that time has passed. They
    go on until it has its answer.
    """
    heard, newcomer = Pieces(), Pieces()
    began = time.perf_counter()
    running = asyncio.create_task(loop.streams_while(lambda: not newcomer.tokens, stream, items, callers, heard))
    try:
        while len(heard.gaps) < callers * _RUNNING or time.perf_counter() < began + seconds:
            if running.done():
                break  # it failed
            await asyncio.sleep(_LOOK_SECONDS)
        arrived = time.perf_counter()
        await loop.hear(stream(callers, long), newcomer)
        await running
    finally:
        running.cancel()
    first = newcomer.firsts[0]
    return Interruption(heard.within(began, arrived), heard.touching(arrived, arrived + first), first)
