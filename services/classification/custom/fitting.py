"""The solver: multinomial logistic regression by L-BFGS, in float64, the same each time.

It minimises the weighted mean of the cross-entropy plus `l2 / 2` times the squared norm of the weights; the bias is
free. That is convex, and quasi-Newton with a line search finds the one minimum (Liu and Nocedal, "On the limited memory
BFGS method for large scale optimization", Mathematical Programming 45, 1989). Weights of texts are what balances
labels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from services.classification.custom.training_plan import Stopped

_ITERATIONS: Final = 200
_HISTORY: Final = 10
_CHANGE: Final = 1e-12
EXACT: Final = 1e-6
"""A gradient that is none: the loss is then within 1e-9 or so of its minimum."""


@dataclass(frozen=True)
class Sample:
    """Labelled vectors."""

    vectors: Tensor
    """Float64 [texts, dimensions]."""
    labels: Tensor
    """Int64 [texts]."""
    classes: int

    def part(self, chosen: Iterable[int]) -> Sample:
        """Those texts alone, of the same labels."""
        index = torch.tensor(list(chosen), dtype=torch.int64)
        return Sample(self.vectors[index], self.labels[index], self.classes)

    def weights(self, *, balanced: bool) -> Tensor:
        """What each text counts, float64 [texts], of mean 1: every label as much as any other where `balanced`."""
        if not balanced:
            return torch.ones(len(self.labels), dtype=torch.float64)
        counts = torch.bincount(self.labels, minlength=self.classes).double()
        present = (counts > 0).sum()
        return (len(self.labels) / (present * counts.clamp(min=1)))[self.labels]


@dataclass(frozen=True)
class Solution:
    """A matrix and a bias."""

    weight: Tensor
    """Float64 [classes, dimensions]."""
    bias: Tensor
    """Float64 [classes]."""

    def raw(self, vectors: Tensor) -> Tensor:
        """Raw scores, float64 [texts, classes]."""
        return vectors @ self.weight.T + self.bias


def solve(
    sample: Sample,
    l2: float,
    *,
    balanced: bool,
    stop: threading.Event,
    start: Solution | None = None,
    gradient: float = EXACT,
) -> Solution:
    """The minimum for a sample, looked for from `start` until no number of the gradient is more than `gradient`.

    Raises Stopped soon after `stop` is set.
    """
    start = start or _zero(sample)
    numbers = torch.cat((start.weight, start.bias.unsqueeze(1)), 1)
    problem = _Problem(sample, l2, sample.weights(balanced=balanced))
    search = torch.optim.LBFGS(
        [numbers],
        max_iter=_ITERATIONS,
        history_size=_HISTORY,
        tolerance_grad=gradient,
        tolerance_change=_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        if stop.is_set():
            raise Stopped
        value, numbers.grad = problem.at(numbers)
        return value

    search.step(loss)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return Solution(numbers[:, :-1].contiguous(), numbers[:, -1].contiguous())


class _Problem:
    """The loss and its gradient, written out: for matrices this small, autograd costs more than the arithmetic."""

    def __init__(self, sample: Sample, l2: float, weights: Tensor) -> None:
        self._vectors = torch.cat((sample.vectors, torch.ones(len(sample.labels), 1, dtype=torch.float64)), 1)
        self._labels = sample.labels.unsqueeze(1)
        self._weights = (weights / len(weights)).unsqueeze(1)
        self._l2 = l2

    def at(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Of weights and, in the last column, biases."""
        logs = torch.log_softmax(self._vectors @ numbers.T, 1)
        shrunk = self._l2 * numbers
        shrunk[:, -1] = 0
        value = -(self._weights * logs.gather(1, self._labels)).sum() + 0.5 * (shrunk * numbers).sum()
        missed = logs.exp().scatter_add_(1, self._labels, torch.full_like(self._weights, -1.0))
        return value, (self._weights * missed).T @ self._vectors + shrunk


def _zero(sample: Sample) -> Solution:
    dimensions = sample.vectors.shape[1]
    zeros = torch.zeros(sample.classes, dimensions, dtype=torch.float64)
    return Solution(zeros, torch.zeros(sample.classes, dtype=torch.float64))
