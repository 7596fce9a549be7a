"""The watchdog of engine threads that hang. A thread that hangs in the model can't be ended; its process can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

_log = logging.getLogger(__name__)

_CHECKS: Final = 4
"""Checks in the time that a step may take: a hang is noticed at most a quarter of that time late."""


class WatchedEngine(Protocol):
    """The part of an engine that the watchdog needs."""

    def stepping(self) -> float: ...
    def give_up(self) -> None: ...


class HangWatchdog:
    """Calls `failed` once a step takes longer than `seconds`. For one event loop."""

    def __init__(
        self, engines: Callable[[], Iterable[WatchedEngine]], seconds: float, failed: Callable[[], object]
    ) -> None:
        self._engines = engines
        self._seconds = seconds
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds / _CHECKS, self._check)

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._timer.cancel()

    def _check(self) -> None:
        hanging = [engine for engine in self._engines() if engine.stepping() >= self._seconds]
        for engine in hanging:
            _log.error("the model hangs", extra={"seconds": self._seconds})
            engine.give_up()
        if hanging:
            self._failed()
            return
        self._timer = self._loop.call_later(self._seconds / _CHECKS, self._check)
