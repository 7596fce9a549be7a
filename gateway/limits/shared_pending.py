"""Pending calls in the store that several processes share.

pending.py bounds the pending calls of one process. A call that is still pending after _YOUNG_SECONDS takes its slots in
the store too, so that all processes together keep to the limit. `Store.take` hands the slots over when the call begins.
A call whose first message comes at once needs the store only then. One timer serves all waiting calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from gateway.call import Call
from gateway.limits.exceeded import exceeded
from gateway.limits.pending import PendingCalls, Slots
from gateway.limits.plan import Plan
from gateway.limits.store import Grant, Refusal, Store, StoreDown
from meshgate import errors

_T = TypeVar("_T")

_YOUNG_SECONDS: Final = 0.1


class _Waiter:
    """A call that waits for its first message."""

    __slots__ = ("asked", "call", "over", "refusal", "seen", "task")

    def __init__(self, call: Call, task: asyncio.Task[Any]) -> None:
        self.call = call
        self.task = task
        self.seen = False
        self.asked = False
        self.over = False
        self.refusal: Refusal | None = None


class SharedPendingCalls:
    """Takes slots in the store for calls that stay pending. For one event loop."""

    def __init__(self, store: Store, pending: PendingCalls) -> None:
        self._store = store
        self._pending = pending
        self._waiters: dict[asyncio.Task[Any], _Waiter] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None

    async def wait(self, call: Call, message: Awaitable[_T]) -> _T:
        """Awaits the first message. Raises LimitExceeded where the store has no slot for a call that stays pending."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can wait")
        waiter = self._waiters[task] = _Waiter(call, task)
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_YOUNG_SECONDS, self._looked)
        try:
            return await message
        except asyncio.CancelledError:
            # As asyncio.timeout does: ours is not the task's own cancellation, which goes on.
            if waiter.refusal is not None and not task.uncancel():
                raise exceeded(waiter.refusal) from None
            raise
        finally:
            waiter.over = True
            del self._waiters[task]

    async def stop(self) -> None:
        """Cancels the timer and all tasks."""
        if self._look is not None:
            self._look.cancel()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _looked(self) -> None:
        for waiter in self._waiters.values():
            if waiter.seen and not waiter.asked:
                self._ask(waiter)
            waiter.seen = True
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(_YOUNG_SECONDS, self._looked) if self._waiters else None

    def _ask(self, waiter: _Waiter) -> None:
        waiter.asked = True
        task = asyncio.create_task(self._hold(waiter))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _hold(self, waiter: _Waiter) -> None:
        try:
            answer = await self._take(waiter.call)
        except (StoreDown, errors.Unavailable):
            waiter.asked = False  # this process still counts it; the next timer tries again
            return
        if isinstance(answer, Grant):
            self._granted(waiter, answer)
        elif not waiter.over:
            waiter.refusal = answer
            waiter.task.cancel()

    def _granted(self, waiter: _Waiter, grant: Grant) -> None:
        if waiter.over:
            grant.store.settle(grant, 0)
        else:
            waiter.call.held = grant

    async def _take(self, call: Call) -> Grant | Refusal:
        """Tries other slots of the same scope where the first is taken: the call's model is not known yet."""
        slots: Slots = self._pending.stored(call)
        while isinstance(answer := await self._store.take(Plan((), (), slots, grows=False), 0, 0), Refusal):
            other = self._pending.other(call, answer.by.key)
            if other is None:
                break
            slots = tuple(other if each.key == answer.by.key else each for each in slots)
        return answer
