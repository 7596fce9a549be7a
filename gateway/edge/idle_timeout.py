"""How long the gateway waits for a caller to read or to write, without a timer for each message.

gRPC's flow control makes a write wait while the caller does not read. A caller that stops reading holds one message and
one window of memory, but for an unbounded time. A timer for each message would cost more than the rest of relaying it.
So waits are only noted, and one timer checks all of them four times in the allowed time. A wait ends after `seconds`,
or up to a quarter more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_LOOKS: Final = 4


class IdleTimeouts:
    """Bounds the waits of one kind. For one event loop; a task waits once at a time."""

    def __init__(self, seconds: float) -> None:
        self.ended = 0
        """Waits that took too long, since the start."""
        self._seconds = seconds
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many wait now."""
        return len(self._since)

    async def wait(self, awaitable: Awaitable[_T]) -> _T:
        """Awaits for the present task. Raises TimeoutError when that took too long, and the awaited was cancelled."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("only a task can wait")
        self._since[task] = loop.time()
        if self._look is None:
            self._look = loop.call_later(self._seconds / _LOOKS, self._looked, loop)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # As asyncio.timeout does: ours is not the task's own cancellation, which goes on.
            if task in self._late and not task.uncancel():
                raise TimeoutError from None
            raise
        finally:
            del self._since[task]
            self._late.discard(task)

    def stop(self) -> None:
        """Leaves no timer behind. Waits that go on are no longer bounded."""
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _looked(self, loop: asyncio.AbstractEventLoop) -> None:
        oldest = loop.time() - self._seconds
        for task, since in self._since.items():
            if since <= oldest and task not in self._late:
                self._late.add(task)
                self.ended += 1
                task.cancel()
        self._look = loop.call_later(self._seconds / _LOOKS, self._looked, loop) if self._since else None
