"""Sends settlements and renewals of leases to a shared store, in the background, many at a time.

No call waits for it, so a caller that leaves can't lose a settlement. A settlement that the store did not confirm is
not repeated: a refund that was made twice would admit too much, while a lost one only leaves tokens spent. Concurrency
slots come back by themselves when their lease ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

from gateway.limits.store import Grant, StoreDown

_log = logging.getLogger(__name__)

_BATCH: Final = 64
"""Settlements in one script: the store does nothing else meanwhile, so not too many."""
_MOST: Final = 100_000
"""Settlements that may wait; further ones are lost."""
_AGAIN_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 5.0

Settlement = tuple[Grant, int]


class SettlementQueue:
    """The grants of this process, from `hold` to `settle`."""

    def __init__(
        self,
        settle: Callable[[Sequence[Settlement]], Awaitable[None]],
        renew: Callable[[Sequence[Grant]], Awaitable[None]],
        renew_seconds: float,
        counts: Counter[str],
    ) -> None:
        """`settle` and `renew` are bounded in time and raise StoreDown. `counts` gets the settlements that
        were `lost`.
        """
        self._tell = settle
        self._renew = renew
        self._every = renew_seconds
        self._counts = counts
        self._held: dict[str, Grant] = {}
        self._ended: deque[Settlement] = deque()
        self._wake = asyncio.Event()
        self._reached = True
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def hold(self, grant: Grant) -> None:
        """Renews the grant's lease from now on."""
        self._held[grant.lease] = grant
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def settle(self, grant: Grant, unused: int) -> None:
        """Ends the grant."""
        self._held.pop(grant.lease, None)
        if len(self._ended) >= _MOST:
            self._counts["lost"] += 1
            return
        self._ended.append((grant, unused))
        self._wake.set()

    async def stop(self) -> None:
        """Sends the waiting settlements, within bounds, and ends."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_DRAIN_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._ended:
            self._counts["lost"] += len(self._ended)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._every
        while not self._stopping or self._ended:
            if not self._ended:
                await self._woken(due - loop.time())
            try:
                await self._reach()
                await self._send()
                if loop.time() >= due:
                    await self._go_on()
            except StoreDown:
                self._reached = False
                if self._stopping:
                    return
                await asyncio.sleep(_AGAIN_SECONDS)
            except Exception:  # a defect must not end all later settlements
                _log.exception("settling failed")
                await asyncio.sleep(_AGAIN_SECONDS)
            if loop.time() >= due:
                due = loop.time() + self._every

    async def _woken(self, seconds: float) -> None:
        """Returns when a settlement waits, or after so many seconds."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _reach(self) -> None:
        """After a failure sends an empty renewal first, so that waiting settlements are not lost as well."""
        if not self._reached:
            await self._renew(())
            self._reached = True

    async def _send(self) -> None:
        while self._ended:
            batch = [self._ended.popleft() for _ in range(min(_BATCH, len(self._ended)))]
            try:
                await self._tell(batch)
            except StoreDown:
                self._counts["lost"] += len(batch)
                raise

    async def _go_on(self) -> None:
        held = iter(tuple(self._held.values()))
        while batch := tuple(islice(held, _BATCH)):
            # A grant that ended meanwhile would get a lease that never ends.
            await self._renew([grant for grant in batch if grant.lease in self._held])
