"""How many rows may run at once where the device has no memory for all of them.

A KV cache grows with its texts, so a batch that fits short texts may not fit long ones. Where memory runs out, one
request makes room for the others (oom_recovery.py). From then on no more rows run than are left. After every
RECOVERY_STEPS successful steps, one more row may run.
"""

from __future__ import annotations

from typing import Final

from meshgate.errors import Unavailable

RECOVERY_STEPS: Final = 256
"""Successful steps before one more row is tried."""
_RETRY_SECONDS: Final = 1.0


class RowLimit:
    """Counts rows. The scheduler's thread writes it; any thread may read its numbers."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        """How many may run at once."""
        self.shed = 0
        """Requests that were ended because there was no memory for them."""
        self._most = rows
        self._successes = 0

    def ran_out(self, left: int) -> None:
        """Records that a step found no memory; `left` rows are known to fit."""
        self.rows = max(1, min(self.rows, left))
        self._successes = 0

    def went_well(self) -> None:
        """Records that a step found memory."""
        if self.rows < self._most:
            self._successes += 1
            if self._successes == RECOVERY_STEPS:
                self.rows, self._successes = self.rows + 1, 0


def out_of_memory() -> Unavailable:
    """The error of a request for which there was no memory."""
    return Unavailable("the model has no memory for this call now", reason="OVERLOADED", retry_after=_RETRY_SECONDS)
