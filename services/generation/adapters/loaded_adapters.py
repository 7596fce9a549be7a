"""The adapters of one model in memory: those in use, and those used last, up to so many bytes.

What is on disk decides: a look at it comes before each use, so that what was deleted is gone and what was replaced is
read again. Both happen on threads of their own, so that no disk keeps the event loop or the model waiting; and each
tenant loads one adapter at a time, so that none has all the threads.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from meshgate.errors import DeadlineExceeded, InvalidArgument, MeshError, NotFound, Unavailable
from services.generation.adapters.adapter_errors import unusable
from services.generation.adapters.adapter_store import SHARED, AdapterNames, AdapterStore, FoundAdapter, folder_of
from services.generation.adapters.lora import LoRA, LoraLoader
from services.generation.text.tokenising import BoundedThreads

_WAIT_MOST: Final = 60.0
"""Seconds that a call waits for an adapter that has no deadline."""
_HANDS: Final = 256
"""Looks, and loadings, that may be in hand."""
_LISTS: Final = 32
"""Lists that may be; on threads of their own, so that who asks for many keeps nobody's call waiting."""
_LIST_SECONDS: Final = 1.0


class LoadedAdapters:
    """For one event loop."""

    def __init__(self, shelf: AdapterStore, fitting: LoraLoader, *, memory: int, per_tenant: int) -> None:
        """`memory` is the most bytes of all that are loaded, `per_tenant` how many of a tenant may be."""
        self._shelf = shelf
        self._fitting = fitting
        self._memory = memory
        self._per_tenant = per_tenant
        self._alive: WeakValueDictionary[FoundAdapter, LoRA] = WeakValueDictionary()
        """All that are in memory, those that were given up and are in use yet, too."""
        self._kept: OrderedDict[FoundAdapter, LoRA] = OrderedDict()
        """Those used last come last."""
        self._loading: dict[FoundAdapter, asyncio.Task[LoRA]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._looks = BoundedThreads(_HANDS, "looking")
        self._loads = BoundedThreads(_HANDS, "loading")
        self._lists = BoundedThreads(_LISTS, "listing")

    async def find(self, tenant: str, name: str, remaining: float | None) -> LoRA:
        """A tenant's adapter, or one for all. Raises NotFound (ADAPTER_NOT_FOUND), InvalidArgument (ADAPTER_UNUSABLE),
        Unavailable where there is no room, and DeadlineExceeded after `remaining` seconds: it is loaded nevertheless.
        """
        try:
            async with asyncio.timeout(_WAIT_MOST if remaining is None else remaining):
                return await self._of(await self._look(tenant, name))
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the adapter was there") from None

    async def names(self, tenant: str) -> AdapterNames:
        """What a tenant may name. Raises Unavailable (OVERLOADED, DRAINING), DeadlineExceeded where the disk takes
        longer than a second, and Internal.
        """
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                return await self._lists.run(self._shelf.names, tenant)
        except TimeoutError:
            raise DeadlineExceeded("the adapters could not be listed in time") from None

    def preload(self, tenant: str, name: str) -> None:
        """Loads one before anything is served; blocks. Raises as `find` does."""
        found = self._shelf.look(tenant, name)
        self._keep(found, self._read(found))

    def close(self, why: Callable[[], MeshError] | None = None) -> None:
        """Ends the threads once they have done what they are at; see Tokenising."""
        for each in (self._looks, self._loads, self._lists):
            each.close(why)

    async def _look(self, tenant: str, name: str) -> FoundAdapter:
        try:
            return await self._looks.run(lambda asked: self._shelf.look(*asked), (tenant, name))
        except (NotFound, InvalidArgument):
            for folder in (folder_of(tenant), SHARED):
                self._drop(folder, name)
            raise

    async def _of(self, found: FoundAdapter) -> LoRA:
        there = self._alive.get(found)
        if there is not None:
            self._kept[found] = there
            self._kept.move_to_end(found)
            return there
        task = self._loading.get(found)
        if task is None:
            task = self._loading[found] = asyncio.create_task(self._load(found))
            task.add_done_callback(lambda done: self._loaded(found, done))
        return await asyncio.shield(task)  # others may wait for it, and the next call will want it

    def _loaded(self, found: FoundAdapter, task: asyncio.Task[LoRA]) -> None:
        del self._loading[found]
        if not task.cancelled():
            task.exception()  # those who wait were told; nobody may wait any more

    async def _load(self, found: FoundAdapter) -> LoRA:
        turn = self._turns.setdefault(found.folder, asyncio.Lock())
        async with turn:
            return self._keep(found, await self._loads.run(self._read, found))

    def _read(self, found: FoundAdapter) -> LoRA:
        return self._fitting.fit(self._shelf.read(found))

    def _keep(self, found: FoundAdapter, made: LoRA) -> LoRA:
        if made.size > self._memory:
            raise unusable("it takes more memory than all adapters may")
        self._drop(found.folder, found.name)
        while self._too_many(found.folder) and self._give_up(found.folder):
            pass
        while self._held() + made.size > self._memory and self._give_up(None):
            pass
        if self._too_many(found.folder) or self._held() + made.size > self._memory:
            raise Unavailable("the adapters in use leave no room", reason="OVERLOADED", retry_after=1.0)
        self._alive[found] = self._kept[found] = made
        return made

    def _held(self) -> int:
        return sum(each.size for each in self._alive.values())

    def _too_many(self, folder: str) -> bool:
        return folder != SHARED and sum(each.folder == folder for each in self._alive) >= self._per_tenant

    def _give_up(self, folder: str | None) -> bool:
        """Forgets what was used longest ago, of a folder or of all. What is in use is freed when it no longer is."""
        oldest = next((each for each in self._kept if folder in (None, each.folder)), None)
        return oldest is not None and self._kept.pop(oldest) is not None

    def _drop(self, folder: str | None, name: str) -> None:
        """Forgets an adapter, whatever it was when it was read."""
        for each in [each for each in self._kept if (each.folder, each.name) == (folder, name)]:
            del self._kept[each]
