"""Looks whether the threads of engines still step. A thread that hangs in the model can't be ended; its process can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

_log = logging.getLogger(__name__)

_LOOKS: Final = 4
"""In the time that a step may take: it is noticed a quarter later at most."""


class WatchedEngine(Protocol):
    """An engine, as far as it concerns us."""

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
        self._timer = self._loop.call_later(seconds / _LOOKS, self._look)

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._timer.cancel()

    def _look(self) -> None:
        hanging = [engine for engine in self._engines() if engine.stepping() >= self._seconds]
        for engine in hanging:
            _log.error("the model hangs", extra={"seconds": self._seconds})
            engine.give_up()
        if hanging:
            self._failed()
            return
        self._timer = self._loop.call_later(self._seconds / _LOOKS, self._look)
