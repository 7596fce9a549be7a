"""How many rows may run at once, where the device has no memory for all of them.

A cache grows with what is said, so a batch that fits today's short texts may not fit tomorrow's long ones. Where memory
ends, one call makes room for the others (stepping/shedding.py), and no more rows run from then on than are left; for
every RECOVERY steps that went well, one more may.
"""

from __future__ import annotations

from typing import Final

from meshgate.errors import Unavailable

RECOVERY: Final = 256
"""Steps that go well before another row is tried."""
_RETRY_SECONDS: Final = 1.0


class Headroom:
    """Counts rows. Written by the thread that steps; its numbers may be read on any."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        """So many may run at once."""
        self.shed = 0
        """Calls that were ended because there was no memory for them."""
        self._most = rows
        self._well = 0

    def ran_out(self, left: int) -> None:
        """There was no memory for a step; so many rows are left, and that is what is known to fit."""
        self.rows = max(1, min(self.rows, left))
        self._well = 0

    def went_well(self) -> None:
        """There was memory for a step."""
        if self.rows < self._most:
            self._well += 1
            if self._well == RECOVERY:
                self.rows, self._well = self.rows + 1, 0


def no_memory() -> Unavailable:
    """What a call is told for which there was no memory."""
    return Unavailable("the model has no memory for this call now", reason="OVERLOADED", retry_after=_RETRY_SECONDS)
