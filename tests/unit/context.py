"""A servicer context for tests without sockets."""

from __future__ import annotations

from typing import Any


class FakeContext:
    """What a servicer sees of a call, and what it said."""

    def __init__(self, *metadata: tuple[str, str | bytes], remaining: float | None = None) -> None:
        self.trailers: tuple[tuple[str, str], ...] = ()
        self._metadata = metadata
        self._remaining = remaining

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers
