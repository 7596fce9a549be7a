"""Ends a process whose event loop hangs, so that its supervisor starts another.

A process that hangs still holds its port, and callers go on connecting to it. Envoy's watchdog kills for the same
reason. The loop beats; a thread looks whether it did. Two looks without a beat between them are a hang: after one, the
whole process may have been stopped and just gone on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

HUNG: Final = 3
"""The exit status."""
_SECONDS: Final = 60.0
_BEATS: Final = 4
"""In the time between two looks."""


def _end(where: str) -> None:
    _log.critical("the event loop hangs; ending this process", extra={"where": where})
    sys.stderr.flush()
    os._exit(HUNG)


class Watchdog:
    """Watches the loop that it is started on. `seconds` is how long that may hang before `end(where)` is called."""

    def __init__(self, seconds: float = _SECONDS, end: Callable[[str], None] = _end) -> None:
        self._look_seconds = seconds / 2
        self._end = end
        self._beaten = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """From the loop's own thread."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended. From the loop's own thread."""
        self._timer.cancel()
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        self._beaten = True
        self._timer = self._loop.call_later(self._look_seconds / _BEATS, self._beat)

    def _watch(self) -> None:
        missed = False
        while not self._stopped.wait(self._look_seconds):
            beaten, self._beaten = self._beaten, False
            if missed and not beaten:
                self._end(self._where())
                return
            missed = not beaten

    def _where(self) -> str:
        """The function that the loop's thread is in: code's own words, and nothing that a caller sent."""
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented, for debugging
        return "" if frame is None else f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_name}"
