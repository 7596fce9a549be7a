"""Keeps a keyring renewed, so that a key is deleted when its time is over, whether or not anybody lists keys."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Final

from meshgate.sealing.keyring import Keyring

_LEAST_SECONDS: Final = 300.0
_MOST_SECONDS: Final = 900.0
"""A key outlives its time on disk by no more than this."""


class KeyRenewal:
    """Looks after a keyring every five to fifteen minutes: by chance, so that processes that share its directory are
    rarely at it together. Where they are, each may make a key; all of them are published and open in every process.
    """

    def __init__(self, keyring: Keyring, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """`sleep` waits for so many seconds."""
        self._keyring = keyring
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins. Needs a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends; leaves no task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._sleep(random.uniform(_LEAST_SECONDS, _MOST_SECONDS))  # noqa: S311 - no secret
            self._keyring.tend()
