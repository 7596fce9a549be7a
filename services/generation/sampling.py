"""Choosing the next token of each row of a running batch, each row by its own rules.

The order is that of transformers' generate: repetition penalty, temperature, top_k, top_p, min_p, then one draw. The
draw inverts the cumulative distribution with one number from the row's own generator, so that a seed gives the same
text whatever else runs in the batch, as far as the model's own arithmetic does.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.generation.engine import Matcher, Sampling

_SEEDS = 2**64
_FIRST_LOOK = 1024
"""How many of the likeliest tokens top_p looks at before it sorts the whole vocabulary."""


class NotFinite(ArithmeticError):
    """The model's scores for a row are not numbers."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The token chosen; logprobs as (token id, natural logarithm), best first, when they were asked for."""

    token: int
    logprob: float = 0.0
    alternatives: Sequence[tuple[int, float]] = ()


class Sampler:
    """How one sequence chooses, and what it remembers to do so."""

    def __init__(
        self,
        sampling: Sampling,
        candidate: int,
        prompt: Sequence[int],
        logprobs: int | None,
        matcher: Matcher | None = None,
    ) -> None:
        self.sampling = sampling
        self._matcher = matcher
        self.logprobs = logprobs
        seed = secrets.randbits(64) if sampling.seed is None else (sampling.seed + candidate) % _SEEDS
        self._generator = torch.Generator().manual_seed(seed)
        self._penalised = dict.fromkeys(prompt) if sampling.repetition_penalty != 1.0 else None

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is all that is wanted, so that the whole batch can find it at once."""
        return (
            self.sampling.temperature == 0
            and self._penalised is None
            and self.logprobs is None
            and self._matcher is None
        )

    @property
    def complete(self) -> bool:
        """Whether what the output must match lets nothing more follow."""
        return self._matcher is not None and self._matcher.complete

    def choose(self, logits: Tensor) -> Choice:
        """Chooses by `logits`, float32 [vocabulary]."""
        scores = self._scores(logits if self._matcher is None else _only(self._matcher.allowed(), logits))
        token = int(scores.argmax()) if self.sampling.temperature == 0 else self._draw(scores)
        if self._penalised is not None:
            self._penalised[token] = None
        if self._matcher is not None:
            self._matcher.take(token)
        return Choice(token) if self.logprobs is None else _with_logprobs(token, scores, self.logprobs)

    def _scores(self, logits: Tensor) -> Tensor:
        scores = logits if self._penalised is None else self._penalise(logits)
        if self.sampling.temperature in (0.0, 1.0):
            return scores
        # The maximum becomes 0 first: a tiny temperature may then overflow to minus infinity, never to a NaN.
        return (scores - scores.max()) / self.sampling.temperature

    def _penalise(self, logits: Tensor) -> Tensor:
        seen = torch.tensor(list(self._penalised or ()), dtype=torch.long, device=logits.device)
        scores, penalty = logits[seen], self.sampling.repetition_penalty
        return logits.index_copy(0, seen, torch.where(scores < 0, scores * penalty, scores / penalty))

    def _draw(self, scores: Tensor) -> int:
        kept, ids = kept_tokens(scores, self.sampling)
        cumulative = torch.softmax(kept, 0, dtype=torch.float64).cumsum(0)
        number = torch.rand(1, generator=self._generator, dtype=torch.float64).to(scores.device) * cumulative[-1]
        below = torch.nextafter(cumulative[-1], torch.zeros_like(cumulative[-1]))  # rounding must not reach the end
        place = int(torch.searchsorted(cumulative, torch.minimum(number, below), right=True))
        return place if ids is None else int(ids[place])


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[Choice | Exception]:
    """Chooses for every row of `logits`, float32 [rows, vocabulary]. A row that fails gives its exception."""
    best, tokens = logits.max(dim=-1)
    rows = zip(best.tolist(), tokens.tolist(), samplers, strict=True)
    return [_choose(logits[row], *each) for row, each in enumerate(rows)]


def _choose(logits: Tensor, best: float, token: int, sampler: Sampler) -> Choice | Exception:
    try:
        if not math.isfinite(best):
            raise NotFinite
        return Choice(token) if sampler.plain else sampler.choose(logits)
    except Exception as error:  # one row's trouble is its own
        return error


def _only(allowed: NDArray[np.bool_], logits: Tensor) -> Tensor:
    """The scores of the tokens that may follow; those of all others are minus infinity."""
    mask = torch.from_numpy(allowed[: len(logits)]).to(logits.device)
    return logits.masked_fill(~mask, -torch.inf)


def kept_tokens(scores: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """The scores that top_k, top_p and min_p leave, and the ids they belong to (None: all, in order of id)."""
    ids: Tensor | None = None
    if sampling.top_k is not None and sampling.top_k < len(scores):
        scores, ids = scores.topk(sampling.top_k)
    if sampling.top_p < 1:
        scores, chosen = _nucleus(scores, sampling.top_p)
        ids = chosen if ids is None else ids[chosen]
    if sampling.min_p > 0:
        likely = scores >= scores.max() + math.log(sampling.min_p)
        ids = likely.nonzero().squeeze(1) if ids is None else ids[likely]
        scores = scores[likely]
    return scores, ids


def _nucleus(scores: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest likeliest scores whose probabilities reach top_p (Holtzman et al. 2019), and their places."""
    total = scores.logsumexp(0)
    for count in (min(_FIRST_LOOK, len(scores)), len(scores)):
        likeliest, places = scores.topk(count)
        before = (likeliest - total).exp().cumsum(0)
        if before[-1] >= top_p:
            break
    keep = 1 + int((before[:-1] < top_p).sum())
    return likeliest[:keep], places[:keep]


def _with_logprobs(token: int, scores: Tensor, count: int) -> Choice:
    logprobs = torch.log_softmax(scores, 0)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    found = zip(ids.tolist(), values.tolist(), strict=True)
    return Choice(token, float(logprobs[token]), [each for each in found if each[1] > -math.inf])
