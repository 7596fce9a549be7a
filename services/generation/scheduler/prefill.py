"""The prefill stage: admits requests from the queue, prefills their prompts and reuses cached prefixes.

A step prefills a bounded number of prompt tokens. Prompts of several tenants can be in prefill at once and share that
number (see prefill_policy.py), so that a long prompt makes no other tenant wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from services.batching import Fault
from services.batching.latency_model import LatencyModel
from services.common.error_kinds import classify
from services.generation.model.prefix_cache import PrefixCache
from services.generation.scheduler.candidates import Candidates
from services.generation.scheduler.fair_queue import VirtualTokenCounter
from services.generation.scheduler.oom_recovery import OomRecovery
from services.generation.scheduler.prefill_policy import PrefillPolicy, may_prefill
from services.generation.scheduler.row_table import Prefill
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.scheduler.state import SchedulerState

_log = logging.getLogger(__name__)


class PrefillStage:
    """Prefills up to `prefill_tokens` a step, and at least one chunk. `latency` learns how long that takes."""

    def __init__(
        self,
        state: SchedulerState,
        candidates: Candidates,
        prefix_reuse: PrefixReuse,
        recovery: OomRecovery,
        prefill_tokens: int,
        latency: LatencyModel,
    ) -> None:
        self._state = state
        self._model = state.model
        self._queue = state.queue
        self._table = state.table
        self._clock = state.clock
        self._candidates = candidates
        self._prefix_reuse = prefix_reuse
        self._recovery = recovery
        self._prefill_tokens = prefill_tokens
        self._latency = latency
        self._policy = PrefillPolicy(state.queue)

    def admit(self) -> None:
        """Does one step of work for waiting requests. Raises the model's error when no prompt can be the cause."""
        self._start_prefilled()
        allowance = self._prefill_tokens
        while allowance > 0:
            self._assign_rows(allowance)
            prefill = self._policy.next(self._table.prefills)
            if prefill is None:
                return
            allowance -= self._prefill_chunk(prefill, allowance)
            self._start_prefilled()

    def _assign_rows(self, allowance: int) -> None:
        """Gives free rows to waiting requests: to candidates of a prefilled prompt, and to prompts still to prefill."""
        while (request := self._queue.next(self._may_begin)) is not None:
            source = None if request.logits is None else self._table.source(request)
            if source is None:
                short = self._model.whole or len(request.job.prompt) <= allowance
                self._prefix_reuse.restore(self._table.open(request, short=short))
            else:
                self._candidates.start(request, source)

    def _may_begin(self, request: GenerationRequest) -> bool:
        prefilled = request.logits is not None
        return self._candidates.fits(request) and (prefilled or may_prefill(request.job, self._table.prefills))

    def _prefill_chunk(self, prefill: Prefill, allowance: int) -> int:
        """Prefills the next chunk of a prompt and returns its tokens."""
        prompt, start = prefill.request.job.prompt, prefill.position
        chunk = prompt[start:] if self._model.whole else prompt[start : start + allowance]
        self._state.adapter_layers.select([prefill.request.job.adapter])
        began = self._clock()
        try:
            logits = self._model.prefill(prefill.row, chunk, start)
        except Exception as error:
            self._prefill_failed(prefill, error)
            return len(chunk)
        self._recovery.prefill_succeeded()
        self._latency.learn(len(chunk), self._clock() - began)
        prefill.position += len(chunk)
        prefill.logits = logits if not prefill.unread else None
        return len(chunk)

    def _prefill_failed(self, prefill: Prefill, error: Exception) -> None:
        """Ends the request whose prompt could not be prefilled. Raises `error` where the model itself is broken.

        Memory that ran out while other sequences run says nothing about the model: those sequences hold it.
        """
        fault = classify(error)
        if fault is Fault.MODEL:
            raise error
        self._table.prefills.remove(prefill)
        self._state.dispatch.fail(prefill.request, error)
        if fault is Fault.MEMORY:
            self._recovery.release_memory()
        if fault is not Fault.MEMORY or not self._table:
            self._recovery.probe_model(prefill.row, error)

    def _start_prefilled(self) -> None:
        """Starts the requests whose prompts are prefilled, as far as their rows are known to fit in memory."""
        for prefill in [each for each in self._table.prefills if each.logits is not None]:
            if len(self._table.running) >= self._state.row_limit.rows:
                return
            self._table.settle(prefill)
            self._table.prefills.remove(prefill)
            prefill.request.logits = prefill.logits
            self._candidates.start(prefill.request, prefill.row)
            self._prefix_reuse.store(prefill.request, prefill.row)


class PrefixReuse:
    """Moves cached prefixes into rows and out of them. Where memory runs out, it drops the cache and no call fails."""

    def __init__(self, prefixes: PrefixCache | None, queue: VirtualTokenCounter) -> None:
        """Without `prefixes` every prompt is prefilled from its beginning."""
        self._prefixes = prefixes
        self._queue = queue

    def restore(self, prefill: Prefill) -> None:
        """Begins a prompt with its cached prefix, for which the tenant is not charged."""
        if self._prefixes is None:
            return
        job = prefill.request.job
        with _dropped_without_memory(self._prefixes):
            prefill.position = self._prefixes.restore(job, prefill.row)
            self._queue.charge(job.tenant, -prefill.position)
            if not prefill.request.placed:
                prefill.request.cached = prefill.position

    def store(self, request: GenerationRequest, row: int) -> None:
        """Caches the prompt that was prefilled into a row."""
        if self._prefixes is not None and not request.failed:
            with _dropped_without_memory(self._prefixes):
                self._prefixes.store(request.job, row)

    def clear(self) -> None:
        """Drops the cache and gives its memory back."""
        if self._prefixes is not None:
            self._prefixes.clear()


@contextmanager
def _dropped_without_memory(prefixes: PrefixCache) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if classify(error) is not Fault.MEMORY:
            raise
        _log.warning("no memory for shared prefixes: they are dropped")
        prefixes.clear()
