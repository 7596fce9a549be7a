"""What listeners are told: deltas at the end of the step that made them, and an error at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from meshgate.errors import Internal, MeshError
from services.batching import Fault
from services.common.error_kinds import judge
from services.generation.engine.interface import Delta
from services.generation.scheduler.row_limit import Headroom, no_memory
from services.generation.scheduler.sequence import Group

_log = logging.getLogger(__name__)


class Telling:
    """Collects what was made in a step. A call that has failed hears nothing more."""

    def __init__(self, headroom: Headroom) -> None:
        """`headroom` counts calls for which there was no memory."""
        self._headroom = headroom
        self._made: dict[Group, list[Delta]] = {}

    def note(self, group: Group, delta: Delta) -> None:
        """A candidate was given a token, or ended."""
        if not group.failed:
            self._made.setdefault(group, []).append(delta)

    def deliver(self) -> None:
        """Tells everyone what was made since the last time."""
        made, self._made = self._made, {}
        for group, deltas in made.items():
            if group.failed:  # between two of its tokens, as the thread seemed to hang
                continue
            try:
                group.listener.deltas(deltas)
            except Exception:  # whoever asked is gone
                _log.exception("a listener failed")
                group.cancel()

    def fail(self, group: Group, error: Exception) -> None:
        """A call can't go on. What it made in this step is dropped."""
        if not isinstance(error, MeshError):
            _log.error("a sequence failed", exc_info=error)
            error = self._answer(error)
        self._made.pop(group, None)
        group.fail(error)

    def fail_all(self, groups: Iterable[Group], error: MeshError) -> None:
        """No call can go on."""
        self._made = {}
        for group in groups:
            group.fail(error)

    def _answer(self, error: Exception) -> MeshError:
        if judge(error) is not Fault.MEMORY:
            return Internal("generation failed")
        self._headroom.shed += 1
        error.with_traceback(None)  # its frames keep what memory there was
        return no_memory()
