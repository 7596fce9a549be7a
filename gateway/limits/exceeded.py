"""The error for a caller that exceeds a limit."""

from __future__ import annotations

import math
from typing import Final

from gateway.limits.store import Refusal
from meshgate import errors

_MILLISECOND: Final = 1_000_000
_REFUSALS: Final = {
    "requests_per_second": ("too many requests", "RATE_LIMITED"),
    "tokens_per_minute": ("too many tokens", "TOKENS_EXHAUSTED"),
    "concurrent_calls": ("too many calls at once", "CONCURRENCY_LIMITED"),
    "concurrent_streams": ("too many streams at once", "CONCURRENCY_LIMITED"),
}


def seconds(nanoseconds: int) -> float:
    """A wait in seconds, rounded up to a millisecond."""
    return math.ceil(nanoseconds / _MILLISECOND) / 1000


def exceeded(refusal: Refusal) -> errors.LimitExceeded:
    """The error names the limit, its owner, and, where that is known, the time after which the call would be
    admitted.
    """
    name = refusal.by.name
    message, reason = _REFUSALS[name.partition(" ")[0]]
    after = None if refusal.wait is None else seconds(refusal.wait)
    return errors.LimitExceeded(message, retry_after=after, subject=refusal.by.subject, limit=name, reason=reason)
