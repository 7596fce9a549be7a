"""The refresher of rotated material: TLS files, keys that seal, sign and verify, and revocation lists.

Each rotation is one `Refresher`: a name, an interval, an age for the metrics, and a log line when refreshing begins to
fail and when it works again. A refresh that fails leaves the last good state in use.

A refresher runs on the event loop (`start`, `stop`), or in a thread that calls `poll` now and then.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

_log = logging.getLogger(__name__)

_LEAST_SECONDS: Final = 0.001
"""The shortest pause between two refreshes, so that an interval of 0 does not keep the event loop busy."""

Refresh = Callable[[], Awaitable[None] | None]
"""Refreshes once. Raises where it can't."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """The freshness of one source at one moment, for metrics."""

    name: str
    age_seconds: float
    """Seconds since the last success; infinite where there was none."""
    failures: int
    """Failed refreshes since the start."""


class SourceHealth:
    """The successes and failures of one refresh: the last success, and whether there is an outage now."""

    def __init__(self, name: str) -> None:
        """`name` identifies the source in logs and metrics."""
        self.name = name
        self.failures = 0
        self.seen_at = -math.inf
        self._out = False

    def good(self, now: float) -> None:
        """Records a success. `now` is monotonic, in seconds."""
        self.seen_at = now
        if self._out:
            self._out = False
            _log.info("source is back", extra={"source": self.name})

    def failed(self, why: object, *, log: bool = True) -> None:
        """Records a failure. The log has the first one of an outage, unless the source logs it itself (`log` False).

        `why` must hold no secret.
        """
        self.failures += 1
        if log and not self._out:
            self._out = True
            _log.error("source is out, what is known stays", extra={"source": self.name, "why": str(why)})

    def state(self, now: float) -> SourceState:
        """The freshness at `now`."""
        return SourceState(self.name, now - self.seen_at, self.failures)


class Refresher:
    """One rotation: a refresh that runs again and again. For one event loop or one thread."""

    def __init__(
        self,
        health: SourceHealth | str,
        refresh: Refresh,
        interval: float | Callable[[], float],
        *,
        timeout: float = 60.0,
        why: Callable[[Any], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        """`health` is a name, or belongs to a source that records its own successes and failures.

        `interval` is the pause in seconds before each refresh; a callable is asked for each pause. A refresh on the
        event loop that takes longer than `timeout` seconds is cancelled and has failed. `why` gives the log's text for
        an error. `clock` is monotonic, in seconds; `sleep` stands in for the pause.
        """
        self._own = isinstance(health, str)
        self.health = SourceHealth(health) if isinstance(health, str) else health
        self._refresh = refresh
        self._interval = interval if callable(interval) else lambda: interval
        self._timeout = timeout
        self._why = why or _kind
        self._clock = clock
        self._sleep = sleep or self._pause
        self._next_at = clock() + self._interval()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        if self._own:
            self.health.seen_at = clock()  # the owner has just loaded the material

    def state(self) -> SourceState:
        """The freshness now."""
        return self.health.state(self._clock())

    def start(self) -> None:
        """Refreshes in the background from here on, first after one pause; an infinite one ends with `wake` alone."""
        self._task = asyncio.create_task(self._run(), name=f"refresh {self.health.name}")

    async def stop(self) -> None:
        """Cancels the background task, a refresh in progress included, and waits for its end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def wake(self) -> None:
        """Asks for the interval anew, in the middle of a pause: what was far off may be due now."""
        self._woken.set()

    def due(self) -> float:
        """Seconds until `poll` has something to do."""
        return max(0.0, self._next_at - self._clock())

    def poll(self) -> None:
        """Refreshes if it is time, for a thread without an event loop. Never raises."""
        if self.due() > 0:
            return
        self._next_at = self._clock() + self._interval()
        try:
            self._refresh()
        except Exception as error:  # recorded, and the last good state stays
            self._failed(error)
        else:
            self._good()

    async def refresh(self) -> None:
        """Refreshes once, within the timeout. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(self._timeout):
                if (refreshing := self._refresh()) is not None:
                    await refreshing
        except Exception as error:  # recorded, and the last good state stays
            self._failed(error)
        else:
            self._good()

    async def _run(self) -> None:
        while True:
            await self._sleep(max(_LEAST_SECONDS, self._interval()))
            await self.refresh()
            _heed_cancellation()

    async def _pause(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(left if left < math.inf else None):
                    await self._woken.wait()
            except TimeoutError:
                return
            left = self._interval()

    def _good(self) -> None:
        if self._own:
            self.health.good(self._clock())

    def _failed(self, error: Exception) -> None:
        self.health.failed(self._why(error))


def _kind(error: Exception) -> str:
    """The kind of an error, or the system's words: any other text may repeat a secret."""
    if isinstance(error, TimeoutError):
        return "timed out"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _heed_cancellation() -> None:
    """Raises CancelledError where the task was cancelled and a library kept the cancellation to itself."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
