"""When a sealed call is made again, and after how long. Pure: errors and times in, pauses out.

The rules are gRPC's own for plain calls (gRFC A6): UNAVAILABLE alone, a few attempts, exponential pauses with jitter or
exactly what the server asked for, and none at all while too many calls fail. Beside them stands one of sealing: a key
that the gateway no longer knows is asked for anew, once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from meshgate import errors
from meshgate.client.options import RetryPolicy

_JITTER: Final = 0.2


class Throttle:
    """Keeps retries from adding to an overload: one for all calls of a channel."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._most = self._tokens = policy.throttle_tokens
        self._ratio = policy.throttle_ratio

    def failed(self) -> bool:
        """Counts a failure. Whether a retry is allowed: while more than half of the tokens are left."""
        self._tokens = max(0.0, self._tokens - 1)
        return self._tokens > self._most / 2

    def succeeded(self) -> None:
        """Counts a success."""
        self._tokens = min(self._most, self._tokens + self._ratio)


class Attempts:
    """The attempts at one call. `timeout` is in seconds and spans all of them; None is for ever."""

    def __init__(
        self,
        policy: RetryPolicy,
        throttle: Throttle,
        timeout: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._deadline = None if timeout is None else clock() + timeout
        self._clock = clock
        self._uniform = uniform
        self._left = policy.attempts - 1
        self._pause = policy.first
        self._may_renew_key = True

    def remaining(self) -> float | None:
        """Seconds to the deadline, never below 0."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def succeeded(self) -> None:
        """To be told when the call is answered."""
        self._throttle.succeeded()

    def next(self, error: errors.MeshError) -> float | None:
        """Seconds to wait before another attempt; None where `error` is the call's end."""
        if error.reason == "SEAL_KEY_UNKNOWN" and self._may_renew_key:
            self._may_renew_key = False
            return 0.0
        if not isinstance(error, errors.Unavailable) or not self._throttle.failed() or not self._left:
            return None
        self._left -= 1
        pause = self._next_pause(error.retry_after)
        remaining = self.remaining()
        return pause if remaining is None or pause < remaining else None

    def _next_pause(self, asked: float | None) -> float:
        if asked is not None:
            self._pause = self._policy.first
            return asked
        pause, self._pause = self._pause, min(self._pause * self._policy.factor, self._policy.longest)
        return pause * self._uniform(1 - _JITTER, 1 + _JITTER)
