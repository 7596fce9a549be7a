"""Who is measured: a server with its callers, or a worker that needs none."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Final, Protocol

from bench.load import Load
from bench.services import loop
from bench.services.clients.callers import Client, NotReady, Streaming
from bench.services.contenders.place import Absent, Place
from bench.services.workers.protocol import Order

_REPLY_SECONDS: Final = 300.0
"""How long a worker may take beyond what it was told to."""


class Runner(Protocol):
    """Whoever has work done."""

    async def load(self, items: Sequence[str], callers: int, seconds: float) -> Load:
        """So many callers' work for a while."""

    async def close(self) -> None:
        """Ends what it opened."""


@dataclass(frozen=True)
class Contender:
    """One row of a table."""

    name: str
    title: str
    pids: tuple[int, ...]
    """Of its processes; those that these start are found by themselves."""
    runner: Runner


class Served:
    """A server and its callers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def load(self, items: Sequence[str], callers: int, seconds: float) -> Load:
        return await loop.calls(self._client.call, items, callers, seconds)

    async def close(self) -> None:
        await self._client.close()


class Streamed(Served):
    """A server that answers piece by piece, too."""

    def __init__(self, client: Streaming) -> None:
        super().__init__(client)
        self.pieces = client.pieces


class Worked:
    """A worker: see bench.services.workers.protocol."""

    def __init__(self, orders: IO[bytes], replies: IO[bytes], tokens: int) -> None:
        self._orders = orders
        self._replies = replies
        self._tokens = tokens

    async def ready(self) -> None:
        """Returns once it is. Raises NotReady."""
        await self._reply(_REPLY_SECONDS)

    async def load(self, items: Sequence[str], callers: int, seconds: float) -> Load:
        order = Order(list(items), callers, seconds, self._tokens)
        self._orders.write(json.dumps(asdict(order)).encode() + b"\n")
        self._orders.flush()
        done = json.loads(await self._reply(seconds + _REPLY_SECONDS))
        return Load(done["elapsed"], done["messages"], sorted(done["latencies"]))

    async def close(self) -> None:
        self._orders.close()

    async def _reply(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            line = await asyncio.to_thread(self._replies.readline)
        if not line:
            raise NotReady("the worker ended")
        return line


Start = Callable[[Place], Awaitable[Contender]]
"""Raises Absent or callers.NotReady where it can't be had."""


async def start(place: Place, starts: Mapping[str, Start], only: Sequence[str]) -> list[Contender]:
    """Starts those named, or all, one after the other; notes who can't be had, and why."""
    started = []
    for name, each in starts.items():
        if only and name not in only:
            continue
        began = time.perf_counter()
        try:
            started.append(await each(place))
            sys.stderr.write(f"{name}: ready after {time.perf_counter() - began:.1f} s\n")
        except (Absent, NotReady, TimeoutError, OSError) as error:
            place.notes.append(f"left out: {name}: {error or type(error).__name__}")
    return started
