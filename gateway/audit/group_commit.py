"""How long a group of records may wait for more, so that a sync is shared by several calls.

PostgreSQL has commit_siblings and commit_delay for this: where few calls are under way nobody waits for company that
will not come. Its delay is fixed; here it is a part of what calls take just now, which Little's law tells from how many
are under way and how often one ends. So a wait is short beside a call's own time, whether that is a millisecond or a
minute, and the busier the gateway, the fewer syncs each call pays for. Where calls take their time because a model
does, there are few syncs, the processor has better things to wait for than records, and each call's wait is one less
for the model to work on: so the more calls there are, the longer one waits, and not the longer they take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

COMMIT_SIBLINGS: Final = 5
"""So many calls under way, and a group that waits for more records will get them. PostgreSQL's default too."""
_PART: Final = 0.2
_EACH: Final = 0.0001
"""Seconds for each call under way, about what a sync takes of the processor."""
_WEIGHT: Final = 0.1
"""Of the newest interval between two ends, in their running mean."""


class GroupCommit:
    """The calls under way. For one event loop."""

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        """`longest` is the most seconds that a group waits."""
        self.in_flight = 0
        """Calls whose last record is still to come or being written: for whoever begins and ends them to count."""
        self._committing = 0
        self._longest = longest
        self._clock = clock
        self._since = clock()
        self._ended = 0
        self._interval = 0.0

    def begin(self) -> None:
        """A call's last record is here; `end` follows when it is written."""
        self._committing += 1
        self._ended += 1

    def end(self) -> None:
        """A call's last record is written, or won't be."""
        self._committing -= 1

    def delay(self) -> float:
        """Seconds that a group which begins now may wait; 0 where more records are not soon to come."""
        self._measure()
        if self.in_flight - self._committing < COMMIT_SIBLINGS:
            return 0.0
        return min(self._longest, self.in_flight * min(_EACH, _PART * self._interval))

    def _measure(self) -> None:
        if self._ended:
            now = self._clock()
            newest = min((now - self._since) / self._ended, _EACH / _PART)  # a longer one tells nothing more
            self._interval += _WEIGHT * (newest - self._interval)
            self._since, self._ended = now, 0
