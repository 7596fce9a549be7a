"""A request in the engine and its candidates: tokens in, deltas out, and the decision when each ends."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence as Row
from typing import TYPE_CHECKING

from meshgate.errors import MeshError
from services.generation.engine.interface import (
    Delta,
    Finish,
    FinishReason,
    Job,
    Listener,
    PositionLogprobs,
    TokenLogprob,
)
from services.generation.model.sampling import Choice, Sampler
from services.generation.text.detokenise import Detokeniser, TokenBytes
from services.generation.text.stop import StopScanner

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_serials = itertools.count()


class GenerationRequest:
    """A job in the engine and what its candidates share. It implements Ticket: any thread may call `cancel`."""

    def __init__(self, job: Job, listener: Listener, arrived: float) -> None:
        self.job = job
        self.listener = listener
        self.arrived = arrived
        self.serial = next(_serials)
        self.placed = 0
        """How many candidates have had a row, or ended without one. The others wait."""
        self.logits: Tensor | None = None
        """The logits after the prompt, float32 [vocabulary], while it is prefilled and some candidates wait."""
        self.cached = 0
        """Prompt tokens that came from the prefix cache."""
        self.made = False
        """Whether one of the candidates has a token."""
        self.failed = False
        self._budget = None if job.token_cap is None else job.token_cap - len(job.prompt)
        self._cancelled = False

    def cancel(self) -> None:
        """Ends the job within one step."""
        self._cancelled = True

    def fail(self, error: MeshError) -> None:
        """Reports to the listener, once, that the job failed. The job ends within one step, if there is another."""
        if self.failed:
            return
        self.failed = True
        try:
            self.listener.failed(error)
        except Exception:  # the caller is gone
            _log.exception("a listener failed")

    def finish_reason(self, now: float, after: float = -math.inf) -> FinishReason | None:
        """Why the whole request has to end now; None while it may go on.

        `after` is when the step that begins now will be over. Tokens made so far would be too late by then. A request
        without tokens loses nothing by trying.
        """
        if self._cancelled or self.failed or self._late(max(now, after) if self.made else now):
            return FinishReason.CANCELLED
        return FinishReason.BUDGET if self._budget == 0 else None

    def _late(self, at: float) -> bool:
        return self.job.deadline is not None and at >= self.job.deadline

    def spend(self) -> bool:
        """Takes one token from the budget. Returns False when none is left."""
        if self._budget is not None:
            if self._budget <= 0:
                return False
            self._budget -= 1
        self.made = True
        return True

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self._budget == 0

    @property
    def open(self) -> bool:
        """Whether one of the candidates still needs a row."""
        return not self.failed and self.placed < self.job.candidates

    def waiting(self) -> range:
        """The candidates that have not had a row."""
        return range(self.placed, self.job.candidates)


class Sequence:
    """A running candidate. `length` is how many positions its row holds; `last` is the token that is not in it yet."""

    def __init__(
        self, request: GenerationRequest, candidate: int, tokens: TokenBytes, end: frozenset[int], context: int
    ) -> None:
        job = request.job
        self.request = request
        self.candidate = candidate
        matcher = None if job.grammar is None else job.grammar.matcher()
        present = job.prompt if job.penalise_prompt else ()
        self.sampler = Sampler(job.sampling, candidate, present, job.logprobs, matcher)
        self.length = len(job.prompt)
        self.last = 0
        self._left = min(job.max_output_tokens, context - len(job.prompt))
        self._tokens = tokens
        self._end = end
        self._text = Detokeniser(tokens, fresh=tokens.fresh and job.grammar is None)
        self._stops = StopScanner(job.stop)

    def take(self, choice: Choice) -> Delta:
        """Adds a token and decides whether it is the last. A token beyond the budget is dropped."""
        if not self.request.spend():
            return self.finish(FinishReason.BUDGET)
        self.last = choice.token
        self._left -= 1
        delta = Delta(self.candidate, token_ids=(choice.token,), logprobs=self._logprobs(choice))
        delta.text, matched = self._stops.feed(self._text.feed(choice.token))
        if matched is not None:
            delta.finish = Finish(FinishReason.STOP, matched)
        elif (reason := self._ending(choice.token)) is not None:
            self._close(delta, reason)
        return delta

    def finish(self, reason: FinishReason) -> Delta:
        """Ends the candidate as it is."""
        delta = Delta(self.candidate)
        self._close(delta, reason)
        return delta

    def _ending(self, token: int) -> FinishReason | None:
        if token in self._end or self.sampler.complete:
            return FinishReason.STOP
        if self._left <= 0:
            return FinishReason.LENGTH
        return FinishReason.BUDGET if self.request.spent else None

    def _close(self, delta: Delta, reason: FinishReason) -> None:
        # A partial character is the model's own only where the model ended there; a limit can cut a character in two.
        half = self._text.flush() if reason is FinishReason.STOP else ""
        tail, matched = self._stops.feed(half)
        delta.text += tail + self._stops.flush()
        delta.finish = Finish(reason) if matched is None else Finish(FinishReason.STOP, matched)

    def _logprobs(self, choice: Choice) -> Row[PositionLogprobs]:
        if self.sampler.logprobs is None:
            return ()
        chosen = self._logprob(choice.token, choice.logprob)
        return (PositionLogprobs(chosen, [self._logprob(*each) for each in choice.alternatives]),)

    def _logprob(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token, self._tokens.of(token), min(logprob, 0.0))
