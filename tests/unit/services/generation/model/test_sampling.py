"""Choosing tokens: the same sets as transformers' own warpers, seeds that repeat, and rows that fail alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process

from services.generation.engine.interface import Sampling
from services.generation.model.sampling import Choice, NotFinite, Sampler, choose, draw, kept_tokens

VOCABULARY = 2000  # more than the first look of top_p
warpers: Any = logits_process


def scores(seed: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


def sampler(candidate: int = 0, prompt: tuple[int, ...] = (), logprobs: int | None = None, **rules: Any) -> Sampler:
    return Sampler(Sampling(**rules), candidate, prompt, logprobs)


def token(choice: Choice | Exception) -> int:
    assert isinstance(choice, Choice)
    return choice.token


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    top_k=st.none() | st.integers(1, VOCABULARY),
    top_p=st.just(1.0) | st.floats(0.01, 0.99),
    min_p=st.just(0.0) | st.floats(0.001, 1.0),
)
def test_what_is_kept_is_what_transformers_keeps(
    seed: int, spread: float, top_k: int | None, top_p: float, min_p: float
) -> None:
    logits = scores(seed, spread)
    expected, ids = logits[None].clone(), torch.zeros(1, 1, dtype=torch.long)
    if top_k is not None:
        expected = warpers.TopKLogitsWarper(top_k)(ids, expected)
    if top_p < 1:
        expected = warpers.TopPLogitsWarper(top_p)(ids, expected)
    if min_p > 0:
        expected = warpers.MinPLogitsWarper(min_p)(ids, expected)
    kept, kept_ids = kept_tokens(logits, Sampling(top_k=top_k, top_p=top_p, min_p=min_p))
    found = set(range(VOCABULARY)) if kept_ids is None else set(kept_ids.tolist())
    wanted = set(expected[0].isfinite().nonzero().squeeze(1).tolist())
    # Sums of probabilities round differently: a token exactly at the border may fall on either side.
    assert len(found ^ wanted) <= 1
    assert len(kept) == len(found) >= 1


def test_greedy_rows_take_the_likeliest() -> None:
    logits = torch.stack([scores(1), scores(2)])
    chosen = choose(logits, [sampler(temperature=0.0), sampler(temperature=0.0, logprobs=0)])
    assert [token(choice) for choice in chosen] == logits.argmax(-1).tolist()


def test_a_seed_repeats_and_candidates_differ() -> None:
    def draw(candidate: int, seed: int) -> list[int]:
        one = sampler(candidate, seed=seed)
        return [one.choose(scores(step, 0.1)).token for step in range(8)]

    assert draw(0, 7) == draw(0, 7)
    assert draw(1, 7) == draw(0, 8)
    assert draw(0, 7) != draw(1, 7)
    assert draw(1, 2**64 - 1) == draw(0, 0)


def test_without_a_seed_no_two_are_alike() -> None:
    draws = {tuple(one.choose(scores(0, 0.1)).token for _ in range(8)) for one in (sampler(), sampler(), sampler())}
    assert len(draws) == 3


def test_frequencies_follow_probabilities() -> None:
    one, logits = sampler(seed=3), torch.tensor([0.6, 0.3, 0.1]).log()
    counts = torch.bincount(torch.tensor([one.choose(logits).token for _ in range(4000)]), minlength=3) / 4000
    assert torch.allclose(counts, torch.tensor([0.6, 0.3, 0.1]), atol=0.03)


def test_rows_that_draw_together_have_each_their_own_temperature() -> None:
    logits = torch.tensor([0.6, 0.3, 0.1]).log().expand(2, -1)
    both = [sampler(seed=3, temperature=0.5), sampler(seed=4, temperature=2.0)]
    drawn = torch.tensor([[token(choice) for choice in choose(logits, both)] for _ in range(4000)])
    for row, power in enumerate((2.0, 0.5)):
        expected = torch.tensor([0.6, 0.3, 0.1]) ** power
        counts = torch.bincount(drawn[:, row], minlength=3) / 4000
        assert torch.allclose(counts, expected / expected.sum(), atol=0.03)


def test_a_tiny_temperature_is_greedy_and_not_a_nan() -> None:
    logits = scores(5)
    assert sampler(temperature=1e-45).choose(logits).token == int(logits.argmax())


def test_the_penalty_is_that_of_transformers_and_remembers_output() -> None:
    prompt, logits = (3, 5, 5), scores(9)
    one = sampler(prompt=prompt, temperature=0.0, repetition_penalty=1.7)
    history = list(prompt)
    for _ in range(3):
        warped = warpers.RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([history]), logits[None].clone())
        chosen = one.choose(logits).token
        assert chosen == int(warped.argmax())
        history.append(chosen)


def test_logprobs_are_of_the_tempered_distribution_best_first() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0])
    choice = sampler(seed=0, temperature=0.5, logprobs=2).choose(logits)
    expected = torch.log_softmax(logits / 0.5, 0)
    assert math.isclose(choice.logprob, float(expected[choice.token]), abs_tol=1e-6)
    assert [index for index, _ in choice.alternatives] == [0, 1]
    assert [value for _, value in choice.alternatives] == pytest.approx(expected[:2].tolist(), abs=1e-6)


@pytest.mark.parametrize("rules", [{"temperature": 0.0}, {"seed": 1}, {"seed": 1, "top_p": 0.5}])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_row_without_numbers_fails_alone(rules: dict[str, Any], number: float) -> None:
    rows = [scores(1), torch.full((VOCABULARY,), number), scores(2)]
    first, broken, last = choose(torch.stack(rows), [sampler(**rules) for _ in rows])
    assert isinstance(broken, NotFinite)
    alone = [choose(rows[row][None], [sampler(**rules)])[0] for row in (0, 2)]
    assert [token(first), token(last)] == [token(each) for each in alone]


@pytest.mark.parametrize("places", [1, 3, 4096, 4097, 49_152])
def test_a_draw_inverts_the_cumulative_distribution(places: int) -> None:
    generator = torch.Generator().manual_seed(places)
    logits = torch.randn(50, places, generator=generator) * 2
    numbers = torch.rand(50, generator=generator, dtype=torch.float64)
    numbers[:2] = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    cumulative = logits.double().softmax(1).cumsum(1)
    found = torch.tensor(draw(logits, numbers.tolist()))
    upper = cumulative.gather(1, found[:, None])[:, 0]
    lower = upper - logits.double().softmax(1).gather(1, found[:, None])[:, 0]
    assert bool(((lower - 1e-6 <= numbers) & (numbers <= upper + 1e-6)).all())


def test_what_can_not_be_drawn_is_not() -> None:
    """Whatever the number: no place of a weight of nothing, at either end and in a block of nothing."""
    logits = torch.full((3, 10_000), -math.inf)
    logits[0, 5000], logits[1, 0], logits[2, 9_999] = 1.0, 1.0, 1.0
    for number in (0.0, 0.5, 1 - 2**-53):
        assert draw(logits, [number] * 3) == [5000, 0, 9_999]


def test_a_row_chooses_the_same_alone_and_in_any_company() -> None:
    rules: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2, "temperature": 0.3},
        {"seed": 3, "temperature": 0.9, "top_p": 0.8},
        {"seed": 4, "top_k": 7, "min_p": 0.1},
        {"seed": 5, "repetition_penalty": 1.4},
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.4},
        {"seed": 6, "logprobs": 2},
        {"seed": 7, "temperature": 1.7},
    ]
    logits = torch.randn(12, len(rules), 49_152, generator=torch.Generator().manual_seed(0))
    together = [sampler(prompt=(1, 2), **each) for each in rules]
    alone = [sampler(prompt=(1, 2), **each) for each in rules]
    for step in logits:
        chosen = [token(choice) for choice in choose(step, together)]
        assert chosen == [token(*choose(step[row, None], [one])) for row, one in enumerate(alone)]
