"""A model of a batch's duration, fitted to the last batches.

Duration in seconds = a + b x padded tokens, fitted by least squares; each new batch reduces the weight of older ones.
If all batches had one size, a and b can't be separated and b is 0. The estimate is then too short on purpose: a guess
must not refuse a call.
"""

from __future__ import annotations

from typing import Final

_KEPT: Final = 0.9
"""The factor by which each new batch reduces the weight of older ones."""


class LatencyModel:
    """Estimates durations from measured batches. Before the first batch every estimate is 0."""

    def __init__(self, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._count = self._tokens = self._seconds = self._squares = self._products = 0.0
        self._fixed = self._each = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """Adds a batch of `tokens`, padding included, that took `seconds`."""
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
        """The estimated duration of `tokens`, run in as few batches as possible."""
        return max(1.0, tokens / self._batch_tokens) * self._fixed + tokens * self._each
