"""The state that the parts of the scheduler share, and what a step needs of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshgate.errors import Internal, MeshError
from services.batching import Fault
from services.common.error_kinds import classify
from services.generation.engine.interface import Adapter, Delta
from services.generation.scheduler.fair_queue import VirtualTokenCounter
from services.generation.scheduler.row_limit import RowLimit, out_of_memory
from services.generation.scheduler.row_table import RowTable
from services.generation.scheduler.sequence import GenerationRequest

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class RowModel(Protocol):
    """What a step needs of a model: see CausalModel."""

    rows: int
    context: int
    spare: int
    whole: bool
    """Whether the model prefills a prompt only as one chunk (encoder-decoders)."""

    def prefill(self, row: int, tokens: Row[int], start: int) -> Tensor: ...

    def decode(self, tokens: Row[int], lengths: Row[int]) -> Tensor: ...

    def copy(self, source: int, target: int, length: int) -> None: ...

    def wipe(self, row: int) -> None: ...

    def shrink(self, length: int) -> None: ...


class AdapterLayers(Protocol):
    """The layers that adapters change: see services.generation.adapters."""

    def select(self, adapters: Row[Adapter | None]) -> None:
        """Sets the adapter of each row of the next pass."""


class NoAdapters:
    """The AdapterLayers of a model that has no adapters."""

    def select(self, adapters: Row[Adapter | None]) -> None:
        """Does nothing."""


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """What the parts of a scheduler share."""

    model: RowModel
    adapter_layers: AdapterLayers
    queue: VirtualTokenCounter
    """The requests that wait."""
    table: RowTable
    """Which row holds what."""
    row_limit: RowLimit
    """How many rows fit into memory."""
    dispatch: OutputDispatch
    """What the step will report to listeners."""
    clock: Callable[[], float]


class OutputDispatch:
    """Collects a step's deltas and delivers them at its end; errors go out at once. A failed request gets no more."""

    def __init__(self, row_limit: RowLimit) -> None:
        """`row_limit` counts the requests that found no memory."""
        self._row_limit = row_limit
        self._pending: dict[GenerationRequest, list[Delta]] = {}

    def add(self, request: GenerationRequest, delta: Delta) -> None:
        """Records that a candidate got a token, or ended."""
        if not request.failed:
            self._pending.setdefault(request, []).append(delta)

    def deliver(self) -> None:
        """Gives each listener the deltas since the last delivery."""
        pending, self._pending = self._pending, {}
        for request, deltas in pending.items():
            if request.failed:  # the watchdog may fail it from another thread, between two of its tokens
                continue
            try:
                request.listener.deltas(deltas)
            except Exception:  # the caller is gone
                _log.exception("a listener failed")
                request.cancel()

    def fail(self, request: GenerationRequest, error: Exception) -> None:
        """Ends a request with an error. Its deltas of this step are dropped."""
        if not isinstance(error, MeshError):
            _log.error("a sequence failed", exc_info=error)
            error = self._public_error(error)
        self._pending.pop(request, None)
        request.fail(error)

    def fail_all(self, requests: Iterable[GenerationRequest], error: MeshError) -> None:
        """Ends every request with one error."""
        self._pending = {}
        for request in requests:
            request.fail(error)

    def _public_error(self, error: Exception) -> MeshError:
        if classify(error) is not Fault.MEMORY:
            return Internal("generation failed")
        self._row_limit.shed += 1
        error.with_traceback(None)  # its frames hold on to the little memory there was
        return out_of_memory()
