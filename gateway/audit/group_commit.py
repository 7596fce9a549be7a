"""Group commit: how long a group of records may wait for more, so that several calls share a sync.

PostgreSQL has commit_siblings and commit_delay for this: while few calls are in flight, no record waits for others that
will not come. PostgreSQL's delay is fixed. Here it is a part of the present duration of a call, which Little's law
gives from the number of calls in flight and the rate at which they end. So a wait is short beside a call's own
duration, whether that is a millisecond or a minute, and the busier the gateway, the fewer syncs each call pays for.

Where calls take long because a model is slow, syncs are rare, and each wait is one call less for the model to work on.
So the delay grows with the number of calls, and not with their duration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

COMMIT_SIBLINGS: Final = 5
"""Calls in flight from which on a group waits for more records. PostgreSQL's default too."""
_PART: Final = 0.2
_EACH: Final = 0.0001
"""Seconds of delay for each call in flight: about the processor time of a sync."""
_WEIGHT: Final = 0.1
"""The weight of the newest interval between two ends in their running mean."""


class GroupCommit:
    """The calls in flight, and the delay that follows from them. For one event loop."""

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        """`longest` is the longest delay, in seconds."""
        self.in_flight = 0
        """Calls whose last record is still to come or being written. The journal counts them."""
        self._committing = 0
        self._longest = longest
        self._clock = clock
        self._since = clock()
        self._ended = 0
        self._interval = 0.0

    def begin(self) -> None:
        """Counts a call whose last record has come; `end` follows when it is written."""
        self._committing += 1
        self._ended += 1

    def end(self) -> None:
        """The call's last record is written, or was given up."""
        self._committing -= 1

    def delay(self) -> float:
        """Seconds that a group which begins now may wait; 0 where no more records are about to come."""
        self._measure()
        if self.in_flight - self._committing < COMMIT_SIBLINGS:
            return 0.0
        return min(self._longest, self.in_flight * min(_EACH, _PART * self._interval))

    def _measure(self) -> None:
        if self._ended:
            now = self._clock()
            newest = min((now - self._since) / self._ended, _EACH / _PART)  # a longer one changes nothing
            self._interval += _WEIGHT * (newest - self._interval)
            self._since, self._ended = now, 0
