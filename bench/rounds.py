"""Every contender in turn, again and again, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import process
from bench.contender import Contender, Room
from bench.load import Callers, Load, Work


@dataclass(frozen=True)
class Round:
    """One slice of one contender."""

    load: Load
    cpu: float
    """Seconds of CPU that the contender's own processes took."""
    resident: int
    """Bytes that they hold."""

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return self.load.messages / self.load.elapsed

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU for each message."""
        return self.cpu / self.load.messages * 1e6


Rounds = Mapping[str, Sequence[Round]]
"""Contender to its rounds, the n-th of each taken together."""


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int
    seconds: float
    """Of each slice."""


class Measurement:
    """Open connections to every contender."""

    def __init__(self, room: Room, contenders: Sequence[Contender], plan: Plan) -> None:
        self._contenders = list(contenders)
        self._plan = plan
        self._callers = {item.name: Callers(room, item) for item in contenders}

    async def ready(self) -> list[Contender]:
        """Returns once all answer, with those that are not what they say: they are not measured.

        Raises TimeoutError or grpc.aio.AioRpcError.
        """
        for callers in self._callers.values():
            await callers.ready()
        false = [item for item in self._contenders if not item.is_what_it_says()]
        self._contenders = [item for item in self._contenders if item not in false]
        return false

    async def unary(self, callers: int) -> Rounds:
        """The unary calls of every contender."""
        works = {item.name: await self._callers[item.name].unary() for item in self._contenders}
        return await self._rounds(works, callers)

    async def streams(self, names: Sequence[str], callers: int) -> Rounds:
        """The streams of those named."""
        works = {item.name: self._callers[item.name].stream() for item in self._contenders if item.name in names}
        return await self._rounds(works, callers)

    async def close(self) -> None:
        """Ends the connections."""
        for callers in self._callers.values():
            await callers.close()

    async def _rounds(self, works: Mapping[str, Work], callers: int) -> Rounds:
        rounds: dict[str, list[Round]] = {name: [] for name in works}
        chosen = [item for item in self._contenders if item.name in works]
        for item in chosen:  # not counted: what is only slow at first
            await self._callers[item.name].load(works[item.name], callers, self._plan.seconds / 4)
        for _ in range(self._plan.rounds):
            for item in chosen:
                rounds[item.name].append(await self._round(item, works[item.name], callers))
        return rounds

    async def _round(self, item: Contender, work: Work, callers: int) -> Round:
        pids = process.family(item.pids)
        before = process.cpu_seconds(pids)
        load = await self._callers[item.name].load(work, callers, self._plan.seconds)
        return Round(load, process.cpu_seconds(pids) - before, process.resident_bytes(pids))
