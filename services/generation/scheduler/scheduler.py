"""The scheduler: the queue and the running batch as a state that moves on step by step.

A step does three things. It ends the sequences that must end, it advances every running sequence by one token, and it
admits requests from the queue. An admitted request gets a row; each step prefills a chunk of its prompt into that row,
so that running sequences never wait long. The first candidate runs in the row of the prefill, and the others run in
copies of it as rows become free. A prompt is therefore prefilled once, however many candidates it has. `row_table.py`
knows which row holds what.

A sequence that has tokens ends before the step in which its deadline would pass, because its answer would be too late
after that step. `StepDurations` estimates how long the step takes.

`fair_queue.py` decides which request is next. The last `reserved_rows` free rows are for interactive requests of
tenants that have no other row. Neither a tenant that fills the batch with long answers nor batch traffic can thus make
another tenant's single request wait until an answer ends.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Row
from typing import Final

from meshgate.errors import MeshError
from services.batching import Fault
from services.batching.latency_model import LatencyModel
from services.common.error_kinds import classify
from services.generation.engine.interface import Delta, Finish
from services.generation.model import sampling
from services.generation.model.prefix_cache import PrefixCache
from services.generation.model.sampling import Choice
from services.generation.scheduler.candidates import Candidates
from services.generation.scheduler.fair_queue import VirtualTokenCounter
from services.generation.scheduler.oom_recovery import OomRecovery
from services.generation.scheduler.prefill import PrefillStage, PrefixReuse
from services.generation.scheduler.row_limit import RowLimit
from services.generation.scheduler.row_table import RowTable
from services.generation.scheduler.sequence import GenerationRequest, Sequence
from services.generation.scheduler.state import AdapterLayers, NoAdapters, OutputDispatch, RowModel, SchedulerState
from services.generation.text.detokenise import TokenBytes

_REMEMBERED_STEPS: Final = 32
"""How many steps `StepDurations` remembers: about a second of them, so that one slow step is soon forgotten."""


class Scheduler:
    """The queue and the running batch. One thread calls it."""

    def __init__(
        self,
        model: RowModel,
        tokens: TokenBytes,
        end_tokens: frozenset[int],
        prefill_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        reserved_rows: int = 0,
        prefill_latency: LatencyModel | None = None,
        row_limit: RowLimit | None = None,
        adapter_layers: AdapterLayers | None = None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        """`prefill_tokens` is the most prompt tokens that a step prefills. `prefill_latency` learns how long that
        takes, `row_limit` how many rows fit into memory. Without `adapter_layers` no job names an adapter; without
        `prefixes` every prompt is prefilled from its beginning.
        """
        self._clock = clock
        self._model = model
        self._adapter_layers = adapter_layers or NoAdapters()
        self._queue = VirtualTokenCounter()
        self._table = RowTable(model)
        self._row_limit = row_limit or RowLimit(model.rows)
        self._dispatch = OutputDispatch(self._row_limit)
        state = SchedulerState(
            model, self._adapter_layers, self._queue, self._table, self._row_limit, self._dispatch, clock
        )
        prefix_reuse = PrefixReuse(prefixes, self._queue)
        self._recovery = OomRecovery(state, prefix_reuse)
        self._durations = StepDurations()
        self._candidates = Candidates(state, tokens, end_tokens, reserved_rows)
        latency = prefill_latency or LatencyModel(prefill_tokens)
        self._prefill_stage = PrefillStage(
            state, self._candidates, prefix_reuse, self._recovery, prefill_tokens, latency
        )

    def add(self, request: GenerationRequest) -> None:
        """Queues a request."""
        self._queue.add(request)

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._queue or self._table)

    def step(self) -> None:
        """Runs one step. Raises the model's error when no single sequence can be the cause."""
        began = self._clock()
        prefilling = bool(self._queue or self._table.prefills)
        self._end_due(began, began + self._durations.longest(prefilling=prefilling))
        self._dispatch.deliver()  # an ended sequence must not wait for the step that it ends before
        self._decode_step(began)
        self._admit(prefilling=prefilling)
        self._dispatch.deliver()
        if self.idle():
            self._adapter_layers.select(())  # so that the last adapter can be freed

    def fail(self, error: MeshError) -> None:
        """Ends every request with `error`."""
        requests = dict.fromkeys([*self._table.requests(), *self._queue])
        self._queue.clear()
        self._table.clear()
        self._dispatch.fail_all(requests, error)

    def _end_due(self, now: float, after: float) -> None:
        """Ends every request that was cancelled, has spent its budget, or meets its deadline before `after`."""
        running = self._table.running
        for row in reversed(range(len(running))):
            sequence = running[row]
            reason = sequence.request.finish_reason(now, after)
            if reason is not None:
                self._dispatch.add(sequence.request, sequence.finish(reason))
                self._table.leave(row)
        self._table.prefills = [
            each for each in self._table.prefills if not self._end_waiting(each.request, now, after)
        ]
        if any(request.finish_reason(now, after) for request in self._queue):
            self._queue.remove(lambda request: self._end_waiting(request, now, after))

    def _end_waiting(self, request: GenerationRequest, now: float, after: float) -> bool:
        """Ends the candidates that have no row yet, where the request has to end."""
        reason = request.finish_reason(now, after)
        if reason is None:
            return False
        for candidate in request.waiting():
            self._dispatch.add(request, Delta(candidate, finish=Finish(reason)))
        request.placed = request.job.candidates
        return True

    def _admit(self, *, prefilling: bool) -> None:
        began = self._clock()
        self._prefill_stage.admit()
        if prefilling:
            self._durations.prefilled(self._clock() - began)

    def _decode_step(self, began: float) -> None:
        """Gives every running sequence one token."""
        running = self._table.running
        if not running:
            return
        try:
            choices = self._decode(running)
        except Exception as error:
            if classify(error) is not Fault.MEMORY:
                raise
            self._recovery.shed(error)
            return
        self._row_limit.went_well()
        for sequence in running:
            sequence.length += 1
        ended = [row for row, choice in enumerate(choices) if self._candidates.take(running[row], choice)]
        for row in reversed(ended):
            if isinstance(choices[row], Exception):
                self._model.wipe(row)
            self._table.leave(row)
        self._durations.decoded(self._clock() - began)

    def _decode(self, running: Row[Sequence]) -> Row[Choice | Exception]:
        self._adapter_layers.select([each.request.job.adapter for each in running])
        logits = self._model.decode([each.last for each in running], [each.length for each in running])
        return sampling.choose(logits, [each.sampler for each in running])


class StepDurations:
    """The durations, in seconds, of the last decode steps and of the last prefills beside them. For one thread."""

    def __init__(self) -> None:
        self._decodes: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._prefills: deque[float] = deque(maxlen=_REMEMBERED_STEPS)

    def decoded(self, seconds: float) -> None:
        """Records a decode step."""
        self._decodes.append(seconds)

    def prefilled(self, seconds: float) -> None:
        """Records an admission and the prefills of its step."""
        self._prefills.append(seconds)

    def longest(self, *, prefilling: bool) -> float:
        """The longest of the remembered steps. `prefilling` is whether the next step has prompts to prefill."""
        return max(self._decodes, default=0.0) + (max(self._prefills, default=0.0) if prefilling else 0.0)
