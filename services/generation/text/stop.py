"""Stop sequences in text that comes in pieces.

Text that may be the beginning of a stop sequence is held back until that is decided. The result does not depend on
where the pieces are cut: the stop sequence that is complete first wins, and of those complete at once the one that
began first.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Feeds text through and stops at the first stop sequence."""

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops` are not empty strings."""
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """What can be let out after `text`, and the stop sequence that matched, if any."""
        if not self._stops:
            return text, None
        text = self._held + text
        found = self._first_match(text)
        if found is not None:
            start, matched = found
            self._held = ""
            return text[:start], matched
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], None

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        text, self._held = self._held, ""
        return text

    def _first_match(self, text: str) -> tuple[int, str] | None:
        matches = [(text.find(stop), stop) for stop in self._stops]
        ended = [(start + len(stop), start, stop) for start, stop in matches if start >= 0]
        return min(ended)[1:] if ended else None


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with, short of the whole of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
