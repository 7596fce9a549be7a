"""A semaphore with weights that refuses instead of waiting: a call acquires its weight before any work, or fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from meshgate.errors import Unavailable

_RETRY_SECONDS = 1.0


class WeightedSemaphore:
    """A bound on the total weight of the calls in progress. For one event loop; not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self.free = capacity

    @contextmanager
    def take(self, weight: int = 1) -> Iterator[None]:
        """Holds `weight` for the block. Raises Unavailable (OVERLOADED) when less is free."""
        release = self.acquire(weight)
        try:
            yield
        finally:
            release()

    def acquire(self, weight: int = 1) -> Callable[[], None]:
        """Takes `weight` and returns the function that releases it once. Raises Unavailable (OVERLOADED)."""
        if weight > self.free:
            raise Unavailable("the queue is full", reason="OVERLOADED", retry_after=_RETRY_SECONDS)
        self.free -= weight

        def release() -> None:
            self.free += weight

        return release
