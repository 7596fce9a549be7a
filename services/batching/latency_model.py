"""How fast the model is: what its last batches say of the next ones.

The seconds of a batch are a + b x its padded tokens: a fit by least squares, in which each new batch makes the older
ones count less. Where the batches don't tell a from b, because they were all of one size, b is 0, and the estimate is
too short: a call is not refused on a guess.
"""

from __future__ import annotations

from typing import Final

_KEPT: Final = 0.9
"""What a batch still counts after the next one."""


class LatencyModel:
    """Estimates from what was measured. Before the first batch everything takes no time."""

    def __init__(self, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._count = self._tokens = self._seconds = self._squares = self._products = 0.0
        self._fixed = self._each = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens, padding included, took so long."""
        self._count = _KEPT * self._count + 1
        self._tokens = _KEPT * self._tokens + tokens
        self._seconds = _KEPT * self._seconds + seconds
        self._squares = _KEPT * self._squares + tokens * tokens
        self._products = _KEPT * self._products + tokens * seconds
        spread = self._count * self._squares - self._tokens * self._tokens
        slope = 0.0
        if spread > 1e-6 * self._squares * self._count:
            slope = (self._count * self._products - self._tokens * self._seconds) / spread
        self._each = min(max(slope, 0.0), self._seconds / max(self._tokens, 1.0))
        self._fixed = (self._seconds - self._each * self._tokens) / self._count

    def seconds(self, tokens: int) -> float:
        """How long so many tokens take, in as few batches as can be."""
        return max(1.0, tokens / self._batch_tokens) * self._fixed + tokens * self._each
