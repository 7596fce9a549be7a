"""One candidate on its way: tokens in, deltas out, and the decision when it ends."""

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


class Group:
    """One job in the engine and what its candidates share. It is the Ticket: `cancel` may come from any thread."""

    def __init__(self, job: Job, listener: Listener, arrived: float) -> None:
        self.job = job
        self.listener = listener
        self.arrived = arrived
        self.serial = next(_serials)
        self.placed = 0
        """Candidates that have had a row, or ended without one. The others wait."""
        self.logits: Tensor | None = None
        """The scores after the prompt, float32 [vocabulary], where it was read and some of its candidates wait."""
        self.cached = 0
        """Tokens of the prompt that were kept from another and not read again."""
        self.made = False
        """Whether one of its candidates was given a token."""
        self.failed = False
        self._budget = None if job.token_cap is None else job.token_cap - len(job.prompt)
        self._cancelled = False

    def cancel(self) -> None:
        """Ends the job within a step."""
        self._cancelled = True

    def fail(self, error: MeshError) -> None:
        """Tells the listener, once, that the job can't go on; it ends within a step, if there is another."""
        if self.failed:
            return
        self.failed = True
        try:
            self.listener.failed(error)
        except Exception:  # whoever asked is gone
            _log.exception("a listener failed")

    def verdict(self, now: float, after: float = -math.inf) -> FinishReason | None:
        """Why all of it has to end now, if it has to. `after` is when the step that begins now will be over: what was
        made by now would then be too late. A job that has made nothing loses nothing by trying.
        """
        if self._cancelled or self.failed or self._late(max(now, after) if self.made else now):
            return FinishReason.CANCELLED
        return FinishReason.BUDGET if self._budget == 0 else None

    def _late(self, at: float) -> bool:
        return self.job.deadline is not None and at >= self.job.deadline

    def spend(self) -> bool:
        """Takes one token from the budget; False when none is left."""
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
        """Whether one of its candidates will yet want a row."""
        return not self.failed and self.placed < self.job.candidates

    def waiting(self) -> range:
        """The candidates that have had no row yet."""
        return range(self.placed, self.job.candidates)


class Sequence:
    """A candidate. `length` is how many positions its row holds; `last` is the token made and not yet in the row."""

    def __init__(self, group: Group, candidate: int, tokens: TokenBytes, end: frozenset[int], context: int) -> None:
        job = group.job
        self.group = group
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
        """Adds a token and decides whether it was the last. A token over the budget is not taken."""
        if not self.group.spend():
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
        """Ends it as it is."""
        delta = Delta(self.candidate)
        self._close(delta, reason)
        return delta

    def _ending(self, token: int) -> FinishReason | None:
        if token in self._end or self.sampler.complete:
            return FinishReason.STOP
        if self._left <= 0:
            return FinishReason.LENGTH
        return FinishReason.BUDGET if self.group.spent else None

    def _close(self, delta: Delta, reason: FinishReason) -> None:
        # Half a character is the model's own only where it ended there itself; a limit cuts between two tokens of one.
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
