"""Choosing the next token of each row of a running batch, each row by its own rules; rows without any choose at once.

The order is that of transformers' generate: repetition penalty, temperature, top_k, top_p, min_p, then one draw. The
draw inverts the cumulative distribution with one number from the row's own generator, so that a seed gives the same
text whatever else runs in the batch, as far as the model's own arithmetic does.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from services.generation.engine.interface import Matcher, Sampling

_SEEDS = 2**64
_FIRST_LOOK: Final = 1024
"""How many of the likeliest tokens top_p looks at before it sorts all that may be needed."""
_BLOCK: Final = 256
"""Places summed up at the first look of a draw."""
_ONE_LOOK: Final = 4096
"""Places that a draw looks at all at once."""
_ROUNDING: Final = 1e-3
"""More than the error of a logarithm of sums."""


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
        self._seen = _SeenTokens(prompt) if sampling.repetition_penalty != 1.0 else None

    @property
    def plain(self) -> bool:
        """Whether nothing but temperature decides, so that the whole batch can choose at once."""
        rules = self.sampling
        return (
            (rules.temperature == 0 or (rules.top_k is None and rules.top_p == 1 and rules.min_p == 0))
            and self._seen is None
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
        if self._seen is not None:
            self._seen.add(token)
        if self._matcher is not None:
            self._matcher.take(token)
        return Choice(token) if self.logprobs is None else _with_logprobs(token, scores, self.logprobs)

    def number(self) -> float:
        """The next random number of its own, from 0 up to but not including 1."""
        return torch.rand(1, generator=self._generator, dtype=torch.float64).item()

    def _scores(self, logits: Tensor) -> Tensor:
        scores = logits if self._seen is None else self._penalise(logits, self._seen)
        if self.sampling.temperature in (0.0, 1.0):
            return scores
        # The maximum becomes 0 first: a tiny temperature may then overflow to minus infinity, never to a NaN.
        return (scores - scores.max()) / self.sampling.temperature

    def _penalise(self, logits: Tensor, seen: _SeenTokens) -> Tensor:
        ids, penalty = seen.ids(logits.device), self.sampling.repetition_penalty
        scores = logits[ids]
        return logits.index_copy(0, ids, torch.where(scores < 0, scores * penalty, scores / penalty))

    def _draw(self, scores: Tensor) -> int:
        kept, ids = kept_tokens(scores, self.sampling)
        (place,) = draw(kept[None], [self.number()])
        return place if ids is None else int(ids[place])


class _SeenTokens:
    """The tokens of a text, each once, kept as a tensor: a token that is new is added to it."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._all = dict.fromkeys(prompt)
        self._ids = torch.tensor(list(self._all), dtype=torch.long)

    def add(self, token: int) -> None:
        if token not in self._all:
            self._all[token] = None
            self._ids = torch.cat([self._ids, self._ids.new_tensor([token])])

    def ids(self, device: torch.device) -> Tensor:
        self._ids = self._ids.to(device)
        return self._ids


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[Choice | Exception]:
    """Chooses for every row of `logits`, float32 [rows, vocabulary]. A row that fails gives its exception."""
    best = logits.amax(1)
    tokens = _greedy(logits, samplers) | _drawn(logits, best, samplers)
    rows = zip(best.tolist(), samplers, strict=True)
    return [_choose(logits[row], tokens.get(row), *each) for row, each in enumerate(rows)]


def _greedy(logits: Tensor, samplers: Sequence[Sampler]) -> dict[int, int]:
    """The likeliest tokens of all rows that want no more."""
    rows = [row for row, each in enumerate(samplers) if each.plain and each.sampling.temperature == 0]
    return dict(zip(rows, _of(logits, rows).argmax(1).tolist(), strict=True)) if rows else {}


def _drawn(logits: Tensor, best: Tensor, samplers: Sequence[Sampler]) -> dict[int, int]:
    """The tokens of all rows that are to be drawn by temperature alone."""
    rows = [row for row, each in enumerate(samplers) if each.plain and each.sampling.temperature > 0]
    if not rows:
        return {}
    temperatures = torch.tensor([samplers[row].sampling.temperature for row in rows], device=logits.device)
    # As in Sampler._scores, and for the same reason.
    scores = (_of(logits, rows) - _of(best, rows)[:, None]).div_(temperatures[:, None])
    return dict(zip(rows, draw(scores, [samplers[row].number() for row in rows]), strict=True))


def _of(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    return tensor if len(rows) == len(tensor) else tensor[torch.tensor(rows, device=tensor.device)]


def _choose(logits: Tensor, token: int | None, best: float, sampler: Sampler) -> Choice | Exception:
    try:
        if not math.isfinite(best):
            raise NotFinite
        return sampler.choose(logits) if token is None else Choice(token)
    except Exception as error:  # one row's trouble is its own
        return error


def draw(scores: Tensor, numbers: Sequence[float]) -> list[int]:
    """Draws a place of each row of `scores`, [rows, places], by its number from 0 up to but not including 1.

    The cumulative distribution is inverted. Where there are many places that is done in two looks, at the sums of
    blocks and then within one: a sum over all places in double precision costs more than all else that a choice does.
    """
    weights = scores.softmax(1)
    number = torch.tensor(numbers, dtype=torch.float64, device=scores.device)[:, None]
    if weights.shape[1] <= _ONE_LOOK:
        places, _ = _invert(weights, number)
        return _listed(places)
    if weights.shape[1] % _BLOCK:
        weights = pad(weights, (0, -weights.shape[1] % _BLOCK))
    weights = weights.view(len(weights), -1, _BLOCK)
    blocks, part = _invert(weights.sum(2), number)
    places, _ = _invert(weights[torch.arange(len(weights), device=scores.device), blocks], part[:, None])
    return _listed(blocks * _BLOCK + places)


def _invert(weights: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulative weights of each row pass `number` of their sum, and how much of that place it is, 0 to 1."""
    cumulative = weights.cumsum(1, dtype=torch.float64)
    last = cumulative[:, -1:]
    wanted = torch.minimum(number * last, torch.nextafter(last, torch.zeros_like(last)))  # rounding must not reach it
    place = torch.searchsorted(cumulative, wanted, right=True).clamp_(max=weights.shape[1] - 1)  # for rows of NaN
    weight = weights.gather(1, place).double()
    return place[:, 0], ((wanted - cumulative.gather(1, place) + weight) / weight)[:, 0].clamp_(0, 1)


def _listed(places: Tensor) -> list[int]:
    found: list[int] = places.tolist()
    return found


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
    """The fewest likeliest scores whose probabilities reach top_p (Holtzman et al. 2019), and their places.

    All tokens that are less likely than (1 - top_p) / their count are 1 - top_p together at most, so that those above
    reach top_p: only they are sorted.
    """
    total = scores.logsumexp(0)
    least = total + (math.log((1 - top_p) / len(scores)) - _ROUNDING)
    likely = (scores >= least).nonzero().squeeze(1)
    for count in (min(_FIRST_LOOK, len(likely)), len(likely)):
        likeliest, order = scores[likely].topk(count)
        before = (likeliest - total).exp().cumsum(0)
        if before[-1] >= top_p:
            break
    keep = 1 + int((before[:-1] < top_p).sum())
    return likeliest[:keep], likely[order[:keep]]


def _with_logprobs(token: int, scores: Tensor, count: int) -> Choice:
    logprobs = torch.log_softmax(scores, 0)
    values, ids = logprobs.topk(min(count, len(logprobs)))
    found = zip(ids.tolist(), values.tolist(), strict=True)
    return Choice(token, float(logprobs[token]), [each for each in found if each[1] > -math.inf])
