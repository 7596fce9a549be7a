"""How long steps take, so that an answer leaves before the step in which its deadline would pass."""

from __future__ import annotations

from collections import deque
from typing import Final

_KEPT: Final = 32
"""Steps that are remembered: about a second of them, so that one that was slow by chance is soon forgotten."""


class Durations:
    """The last decode steps and the last prefills beside them, in seconds. For the one thread that steps."""

    def __init__(self) -> None:
        self._decodes: deque[float] = deque(maxlen=_KEPT)
        self._prefills: deque[float] = deque(maxlen=_KEPT)

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        self._decodes.append(seconds)

    def prefilled(self, seconds: float) -> None:
        """Letting in who waited, and reading their prompts, took so long."""
        self._prefills.append(seconds)

    def longest(self, *, prefill: bool) -> float:
        """The longest step of late. `prefill` says whether the next one has prompts to read."""
        return max(self._decodes, default=0.0) + (max(self._prefills, default=0.0) if prefill else 0.0)
