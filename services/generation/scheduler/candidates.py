"""The candidates of requests: which may have a row, its first token, and each token after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.generation.engine.interface import Priority
from services.generation.model import sampling
from services.generation.model.sampling import Choice
from services.generation.scheduler.sequence import GenerationRequest, Sequence
from services.generation.scheduler.state import SchedulerState
from services.generation.text.detokenise import TokenBytes

if TYPE_CHECKING:
    from torch import Tensor


class Candidates:
    """Puts candidates into rows and gives them tokens."""

    def __init__(
        self, state: SchedulerState, tokens: TokenBytes, end_tokens: frozenset[int], reserved_rows: int
    ) -> None:
        """The last `reserved_rows` free rows are for interactive requests of tenants that have no other row."""
        self._model = state.model
        self._row_limit = state.row_limit
        self._queue = state.queue
        self._table = state.table
        self._dispatch = state.dispatch
        self._tokens = tokens
        self._end_tokens = end_tokens
        self._reserved_rows = reserved_rows

    def fits(self, request: GenerationRequest) -> bool:
        """Whether there is a row that the request's next candidate may have."""
        rows = self._row_limit.rows
        free = rows - self._table.taken
        if free > min(self._reserved_rows, rows - 1):
            return True
        job = request.job
        first_of_tenant = job.priority is Priority.INTERACTIVE and not any(
            each.tenant == job.tenant and each.priority is Priority.INTERACTIVE for each in self._table.jobs()
        )
        return free > 0 and first_of_tenant

    def start(self, request: GenerationRequest, source: int) -> None:
        """Starts the next candidate, for which there is a row, and those after it as far as they fit.

        Row `source` holds their prompt. Candidates that still wait find the prompt later in the spare row or in the row
        of a running candidate.
        """
        logits, request.logits = request.logits, None
        if logits is None or not request.open:
            return
        while self._start_one(request, source, logits) and self.fits(request):
            pass
        if request.open:
            request.logits = logits
            self._table.keep(request, source)
            self._queue.put_back(request)

    def take(self, sequence: Sequence, choice: Choice | Exception) -> bool:
        """Gives a sequence its token. Returns True when the sequence has ended, also by an error of its own."""
        try:
            if isinstance(choice, Exception):
                raise choice
            delta = sequence.take(choice)
        except Exception as error:
            self._dispatch.fail(sequence.request, error)
            return True
        self._queue.charge(sequence.request.job.tenant, len(delta.token_ids))
        self._dispatch.add(sequence.request, delta)
        return delta.finish is not None

    def _start_one(self, request: GenerationRequest, source: int, logits: Tensor) -> bool:
        """Gives the next candidate its first token and a row. Returns False once there is no further candidate."""
        candidate, request.placed = request.placed, request.placed + 1
        try:
            sequence = Sequence(request, candidate, self._tokens, self._end_tokens, self._model.context)
        except Exception as error:
            self._dispatch.fail(request, error)
            return False
        (choice,) = sampling.choose(logits[None], [sequence.sampler])
        if isinstance(choice, Exception):
            self._model.wipe(source)
        if not self.take(sequence, choice):
            self._table.join(sequence, source)
        return request.open
