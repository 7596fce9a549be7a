"""Recovery from running out of memory: one request ends and makes room for the others. See row_limit.py."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from services.generation.engine.interface import Priority
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.scheduler.state import SchedulerState

_log = logging.getLogger(__name__)

_FAILED_PROBES: Final = 3
"""Failed prefills in a row after which the model counts as broken, where each time the probe fails as well."""
_PROBE: Final = (0,)
"""A prompt that every sound model can prefill."""


class DroppableCache(Protocol):
    """A cache that no request depends on."""

    def clear(self) -> None: ...


class OomRecovery:
    """Makes room in memory, and finds out whether the model is broken."""

    def __init__(self, state: SchedulerState, cache: DroppableCache) -> None:
        """`cache` is dropped where memory is short."""
        self._state = state
        self._cache = cache
        self._failed_probes = 0

    def shed(self, error: Exception) -> None:
        """Ends one request, because a step of so many rows found no memory. The other rows are as before the step.

        Raises `error` where no row is left and the model can't prefill the probe either.
        """
        table, row_limit = self._state.table, self._state.row_limit
        running = table.running
        request = max((sequence.request for sequence in running), key=self._expendability)
        self._state.dispatch.fail(request, error)
        for row in reversed(range(len(running))):
            if running[row].request is request:
                table.leave(row)
        row_limit.ran_out(len(running))
        self.release_memory()
        _log.warning("no memory for a step: a call was ended", extra={"rows": row_limit.rows})
        if not table:
            self.probe_model(0, error)

    def release_memory(self) -> None:
        """Gives the device back the memory that no request needs."""
        self._cache.clear()
        self._state.model.shrink(self._state.table.longest())

    def probe_model(self, row: int, error: Exception) -> None:
        """Prefills a probe into a free row after trouble. Raises `error` where that has failed too often."""
        self._state.adapter_layers.select([None])
        try:
            self._state.model.prefill(row, _PROBE, 0)
        except Exception:
            self._failed_probes += 1
            if self._failed_probes >= _FAILED_PROBES:
                raise error from None

    def prefill_succeeded(self) -> None:
        """Records that a prompt was prefilled: the model is sound."""
        self._failed_probes = 0

    def _expendability(self, request: GenerationRequest) -> tuple[bool, int, int]:
        """The order of ending: batch requests first, then the tenant with the most rows, then the newest request."""
        rows = sum(sequence.request.job.tenant == request.job.tenant for sequence in self._state.table.running)
        return request.job.priority is Priority.BATCH, rows, request.serial
