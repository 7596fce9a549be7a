"""A queued call and its inputs, which may run in several batches."""

from __future__ import annotations

import asyncio
from typing import Generic

from services.batching.worker import ItemT, ResultT


class Call(Generic[ItemT, ResultT]):
    """One call: its results so far, its deadline and the future that its caller awaits."""

    __slots__ = ("done", "expires", "left", "results", "tenant")

    def __init__(self, tenant: str, count: int, expires: float, done: asyncio.Future[None]) -> None:
        self.tenant = tenant
        self.results: list[ResultT | None] = [None] * count
        self.left = count
        self.expires = expires
        self.done = done

    def fill(self, index: int, result: ResultT) -> None:
        """Stores the result of one input. The last result ends the call."""
        self.results[index] = result
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Entry(Generic[ItemT, ResultT]):
    """One input of a call."""

    __slots__ = ("call", "index", "item", "length")

    def __init__(self, call: Call[ItemT, ResultT], index: int, item: ItemT, length: int) -> None:
        self.call = call
        self.index = index
        self.item = item
        self.length = length

    @property
    def tenant(self) -> str:
        return self.call.tenant

    @property
    def gone(self) -> bool:
        return self.call.done.done()
