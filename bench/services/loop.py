"""Callers that call, wait for the answer and call again, whatever they call."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.load import Load, quantile
from bench.services.prompts import taken

Call = Callable[[int, str], Awaitable[int]]
"""A caller's number and what it asks, to how many were made: tokens, or texts embedded."""
Stream = Callable[[int, str], AsyncIterator[int]]
"""Likewise, piece by piece: yields 0 for a piece that has come, and in the end how many tokens there were."""


@dataclass
class Pieces:
    """When the pieces of streams came, in seconds."""

    elapsed: float = 0.0
    tokens: int = 0
    firsts: list[float] = field(default_factory=list)
    """From the call to its first piece."""
    gaps: list[float] = field(default_factory=list)
    """Between one piece of a stream and its next."""
    ends: list[float] = field(default_factory=list)
    """When each gap was over, by time.perf_counter()."""

    def gap(self, part: float) -> float:
        """The gap that this part of all gaps is no longer than; NaN where there was none."""
        return quantile(sorted(self.gaps) or [math.nan], part)

    def first(self, part: float) -> float:
        """Likewise of the waits for the first piece."""
        return quantile(sorted(self.firsts) or [math.nan], part)

    def within(self, begin: float, end: float) -> Pieces:
        """The gaps that lie in that time as a whole."""
        return self._kept(lambda gap, at: begin <= at - gap and at <= end)

    def touching(self, begin: float, end: float) -> Pieces:
        """The gaps of which a part lies in that time."""
        return self._kept(lambda gap, at: begin <= at and at - gap <= end)

    def _kept(self, wanted: Callable[[float, float], bool]) -> Pieces:
        kept = [(gap, at) for gap, at in zip(self.gaps, self.ends, strict=True) if wanted(gap, at)]
        return Pieces(gaps=[gap for gap, _ in kept], ends=[at for _, at in kept])


async def calls(call: Call, items: Sequence[str], callers: int, seconds: float) -> Load:
    """Calls from so many callers for a while; what was begun is finished. Raises what a call raises."""
    latencies: list[float] = []
    start = time.perf_counter()

    async def one(caller: int) -> int:
        made = turn = 0
        while (began := time.perf_counter()) < start + seconds:
            made += await call(caller, taken(items, caller, callers, turn))
            latencies.append(time.perf_counter() - began)
            turn += 1
        return made

    made = sum(await _all(one, callers))
    return Load(time.perf_counter() - start, made, sorted(latencies))


async def streams(stream: Stream, items: Sequence[str], callers: int, seconds: float) -> Pieces:
    """Streams of so many callers for a while; those that were begun are heard to their end."""
    start = time.perf_counter()
    heard = Pieces()
    await streams_while(lambda: time.perf_counter() < start + seconds, stream, items, callers, heard)
    heard.elapsed = time.perf_counter() - start
    return heard


async def streams_while(
    going: Callable[[], bool], stream: Stream, items: Sequence[str], callers: int, heard: Pieces
) -> None:
    """Streams of so many callers, who begin another one while it is `going` on."""

    async def one(caller: int) -> int:
        turn = 0
        while going():
            await hear(stream(caller, taken(items, caller, callers, turn)), heard)
            turn += 1
        return turn

    await _all(one, callers)


async def hear(stream: AsyncIterator[int], heard: Pieces) -> None:
    """A stream to its end."""
    before, first = time.perf_counter(), True
    async for tokens in stream:
        if tokens:
            heard.tokens += tokens
            continue
        now = time.perf_counter()
        if first:
            heard.firsts.append(now - before)
        else:
            heard.gaps.append(now - before)
            heard.ends.append(now)
        before, first = now, False


async def _all(one: Callable[[int], Awaitable[int]], callers: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(one, caller)) for caller in range(callers)]
    return [task.result() for task in tasks]


async def _run(one: Callable[[int], Awaitable[int]], caller: int) -> int:
    return await one(caller)
