"""The two errors of a service that takes no more calls. Both are UNAVAILABLE: another replica can serve the call."""

from __future__ import annotations

from meshgate.errors import Unavailable


def draining() -> Unavailable:
    """DRAINING: the service stops, and lets the calls in progress finish."""
    return Unavailable("the service is draining", reason="DRAINING", retry_after=1.0)


def model_failed() -> Unavailable:
    """MODEL_FAILED: the model can't go on, and the process ends."""
    return Unavailable("the model failed", reason="MODEL_FAILED", retry_after=5.0)
