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

_ITERATIONS: Final = 200
_HISTORY: Final = 10
_GRADIENT: Final = 1e-7
_CHANGE: Final = 1e-10


class Stopped(Exception):
    """The training was called off."""


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
    sample: Sample, l2: float, *, balanced: bool, stop: threading.Event, start: Solution | None = None
) -> Solution:
    """The minimum for a sample, looked for from `start`. Raises Stopped soon after `stop` is set."""
    start = start or _zero(sample)
    weight = start.weight.clone().requires_grad_()
    bias = start.bias.clone().requires_grad_()
    weights = sample.weights(balanced=balanced)
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        history_size=_HISTORY,
        tolerance_grad=_GRADIENT,
        tolerance_change=_CHANGE,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        if stop.is_set():
            raise Stopped
        search.zero_grad()
        each = torch.nn.functional.cross_entropy(
            Solution(weight, bias).raw(sample.vectors), sample.labels, reduction="none"
        )
        value: Tensor = (each * weights).mean() + 0.5 * l2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return value

    search.step(loss)  # type: ignore[no-untyped-call]  # likewise
    return Solution(weight.detach(), bias.detach())


def _zero(sample: Sample) -> Solution:
    dimensions = sample.vectors.shape[1]
    zeros = torch.zeros(sample.classes, dimensions, dtype=torch.float64)
    return Solution(zeros, torch.zeros(sample.classes, dtype=torch.float64))
