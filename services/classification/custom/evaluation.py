"""From labelled vectors to a head and its figures: what is held out, which regularisation, how good it is.

Texts are held out label by label, in an order that the seed and nothing else decides, and the regularisation is chosen
by cross-validation of the rest: the held-out texts have no part in the choice, so that their figure does not flatter.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from services.classification.custom.fitting import Sample, Solution, solve
from services.classification.custom.heads import Matrix
from services.classification.custom.training_plan import TrainingPlan

CANDIDATES: Final = (1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 1e-5)
"""Strongest first: each solution is where the next, weaker one is looked for."""
_FOLDS: Final = 4
_NEAR: Final = 1e-4
"""A gradient that is small enough to compare candidates by."""


@dataclass(frozen=True)
class Fitted:
    """A head's numbers and how good it is."""

    solution: Solution
    l2: float
    confusion: tuple[tuple[int, ...], ...]
    """Of the held-out texts: [label][classified as]."""

    @property
    def accuracy(self) -> float:
        """Share of the held-out texts that were classified right."""
        right = sum(row[index] for index, row in enumerate(self.confusion))
        return right / sum(map(sum, self.confusion))


def labelled(vectors: Matrix, numbers: Sequence[int], classes: int) -> Sample:
    """Vectors [texts, dimensions] with the number of the label of each."""
    return Sample(torch.from_numpy(vectors).double(), torch.tensor(numbers), classes)


def fit(sample: Sample, recipe: TrainingPlan, stop: threading.Event) -> Fitted:
    """Trains, measures, and trains again on everything. Each label must have two texts. Raises Stopped."""
    rest, held_out = divide(sample.labels.tolist(), sample.classes, recipe)
    training, test = sample.part(rest), sample.part(held_out)
    l2 = choose(training, recipe, stop) if recipe.l2 is None else recipe.l2
    measured = solve(training, l2, balanced=recipe.balanced, stop=stop)
    final = solve(sample, l2, balanced=recipe.balanced, stop=stop, start=measured)
    return Fitted(final, l2, confusion(test.labels, measured.raw(test.vectors).argmax(1), sample.classes))


def divide(labels: Sequence[int], classes: int, recipe: TrainingPlan) -> tuple[list[int], list[int]]:
    """Indices to train on and to hold out: of each label at least one for either."""
    rest: list[int] = []
    held_out: list[int] = []
    for members in _shuffled(labels, classes, recipe.seed):
        count = min(len(members) - 1, max(1, round(recipe.held_out * len(members))))
        held_out += members[:count]
        rest += members[count:]
    return rest, held_out


def choose(sample: Sample, recipe: TrainingPlan, stop: threading.Event) -> float:
    """The candidate with the least cross-entropy of texts that it was not trained on, label by label alike."""
    losses = dict.fromkeys(CANDIDATES, 0.0)
    for rest, held_out in _folds(sample, recipe.seed):
        training, test = sample.part(rest), sample.part(held_out)
        weights = test.weights(balanced=recipe.balanced)
        start: Solution | None = None
        for l2 in CANDIDATES:
            start = solve(training, l2, balanced=recipe.balanced, stop=stop, start=start, gradient=_NEAR)
            losses[l2] += _loss(start.raw(test.vectors), test.labels, weights)
    return min(CANDIDATES, key=lambda l2: losses[l2])


def _folds(sample: Sample, seed: int) -> list[tuple[list[int], list[int]]]:
    """Each label's texts in turn to each fold; a label with one text is trained on in all folds but one."""
    fold_of: dict[int, int] = {}
    for members in _shuffled(sample.labels.tolist(), sample.classes, seed + 1):
        fold_of |= {member: (len(fold_of) + place) % _FOLDS for place, member in enumerate(members)}
    everyone = range(len(sample.labels))
    folds = [
        ([i for i in everyone if fold_of[i] != fold], [i for i in everyone if fold_of[i] == fold])
        for fold in range(_FOLDS)
    ]
    return [(rest, held_out) for rest, held_out in folds if rest and held_out]


def _shuffled(labels: Sequence[int], classes: int, seed: int) -> list[list[int]]:
    """The indices of each label in an order of the seed's."""
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    members: list[list[int]] = [[] for _ in range(classes)]
    for index, label in enumerate(labels):
        members[label].append(index)
    for each in members:
        order.shuffle(each)
    return members


def _loss(raw: Tensor, labels: Tensor, weights: Tensor) -> float:
    each = torch.nn.functional.cross_entropy(raw, labels, reduction="none")
    return float((each * weights).sum())


def confusion(truth: Tensor, guess: Tensor, classes: int) -> tuple[tuple[int, ...], ...]:
    """Counts [label][classified as]."""
    counts = torch.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)
    return tuple(tuple(map(int, row)) for row in counts)
