"""The first call of an engine, on its own thread, so that no caller pays for the warm-up.

OpenMP starts threads for each thread that multiplies, and oneDNN makes kernels when it first needs them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from meshgate.errors import MeshError
from services.generation.engine.interface import Delta, Engine, Job

_log = logging.getLogger(__name__)

_PROMPT: Final = (0, 0)
_TOKENS: Final = 3


def run_first_call(engine: Engine, rows: int, seconds: float) -> MeshError | None:
    """Fills the rows that one tenant may have, for a step or two, and waits for that at most so long. Returns what the
    call failed with, if it did. Raises what `Engine.submit` does.
    """
    heard = _EndListener(rows)
    engine.submit(Job(_PROMPT, _TOKENS, candidates=rows), heard)
    if not heard.over.wait(seconds):
        _log.error("the first call of a model did not end", extra={"seconds": seconds})
    return heard.error


class _EndListener:
    """A listener that waits for the end, whatever it is."""

    def __init__(self, candidates: int) -> None:
        self.over = threading.Event()
        self.error: MeshError | None = None
        self._open = candidates

    def deltas(self, deltas: Sequence[Delta]) -> None:
        self._open -= sum(delta.finish is not None for delta in deltas)
        if not self._open:
            self.over.set()

    def failed(self, error: MeshError) -> None:
        self.error = error
        self.over.set()
