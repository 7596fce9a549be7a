"""The solver and what is measured with it, over made-up vectors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.classification.custom.evaluation import CANDIDATES, divide, fit
from services.classification.custom.fitting import Sample, solve
from services.classification.custom.training_plan import Stopped, TrainingPlan

NEVER = threading.Event()


def sample(sizes: tuple[int, ...] = (30, 30, 30), spread: float = 0.3, dimensions: int = 16) -> Sample:
    """Clouds around one axis each, of norm 1."""
    made = torch.Generator().manual_seed(7)
    vectors, labels = [], []
    for label, size in enumerate(sizes):
        cloud = spread * torch.randn(size, dimensions, generator=made, dtype=torch.float64)
        cloud[:, label] += 1
        vectors.append(torch.nn.functional.normalize(cloud))
        labels += [label] * size
    return Sample(torch.cat(vectors), torch.tensor(labels), len(sizes))


@pytest.mark.parametrize("balanced", [True, False])
def test_the_solution_is_the_minimum(balanced: bool) -> None:
    data, l2 = sample((40, 10, 5)), 1e-3
    found = solve(data, l2, balanced=balanced, stop=NEVER)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    each = torch.nn.functional.cross_entropy(data.vectors @ weight.T + bias, data.labels, reduction="none")
    loss = (each * data.weights(balanced=balanced)).mean() + 0.5 * l2 * weight.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-5


def test_balancing_makes_labels_weigh_alike() -> None:
    weights = sample((40, 10, 5)).weights(balanced=True)
    assert [float(weights[:40].sum()), float(weights[40:50].sum())] == pytest.approx([55 / 3, 55 / 3])
    assert float(weights.mean()) == pytest.approx(1)


def test_clouds_are_told_apart_and_the_figures_add_up() -> None:
    fitted = fit(sample(), TrainingPlan(), NEVER)
    assert fitted.accuracy > 0.9
    assert [sum(row) for row in fitted.confusion] == [6, 6, 6]
    assert fitted.l2 in CANDIDATES


def test_noise_is_not_told_apart_and_is_kept_small() -> None:
    made = torch.Generator().manual_seed(8)
    vectors = torch.nn.functional.normalize(torch.randn(120, 16, generator=made, dtype=torch.float64))
    noise = Sample(vectors, torch.arange(120) % 3, 3)
    fitted = fit(noise, TrainingPlan(), NEVER)
    assert fitted.accuracy < 0.7
    assert fitted.l2 == CANDIDATES[0]


def test_the_same_seed_gives_the_same_bits_and_another_other_figures() -> None:
    data = sample(spread=0.8)
    first, again, other = (fit(data, TrainingPlan(seed=seed), NEVER) for seed in (1, 1, 2))
    assert np.array_equal(first.solution.weight.numpy(), again.solution.weight.numpy())
    assert (first.confusion, first.l2) == (again.confusion, again.l2)
    assert first.confusion != other.confusion


def test_it_stops_when_it_is_told_to() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        fit(sample(), TrainingPlan(), stop)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**64 - 1),
)
def test_each_label_is_on_both_sides_and_no_text_is(counts: list[int], share: float, seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    rest, held_out = divide(labels, len(counts), TrainingPlan(seed=seed, held_out=share))
    assert sorted(rest + held_out) == list(range(len(labels)))
    for side in (rest, held_out):
        assert {labels[index] for index in side} == set(range(len(counts)))
