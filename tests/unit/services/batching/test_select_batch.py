"""Which inputs run together: in budget, little padding, none for ever passed over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.batching import select_batch

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=200)
budgets = st.integers(1, 2000)


@given(lengths, budgets)
def test_a_batch_stays_in_budget_unless_one_input_is_more(waiting: list[int], budget: int) -> None:
    taken = [waiting[index] for index in select_batch(waiting, budget)]
    assert len(taken) == 1 or max(taken) * len(taken) <= budget


@given(lengths, budgets)
def test_at_most_half_of_a_batch_is_padding(waiting: list[int], budget: int) -> None:
    taken = [waiting[index] for index in select_batch(waiting, budget)]
    assert max(taken) * len(taken) <= 2 * sum(taken)


@given(lengths, budgets)
def test_whose_turn_it_is_runs(waiting: list[int], budget: int) -> None:
    assert 0 in select_batch(waiting, budget)


@given(lengths, budgets)
def test_a_batch_has_room_for_none_of_those_just_shorter_or_longer(waiting: list[int], budget: int) -> None:
    taken = set(select_batch(waiting, budget))
    inside = [waiting[index] for index in taken]
    left = [each for index, each in enumerate(waiting) if index not in taken]
    shorter = max((each for each in left if each <= min(inside)), default=None)
    longer = min((each for each in left if each >= max(inside)), default=None)
    for neighbour in (shorter, longer):
        if neighbour is not None:
            padded = max(*inside, neighbour) * (len(inside) + 1)
            assert padded > budget or padded > 2 * (sum(inside) + neighbour)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 2000))
def test_of_equal_inputs_those_run_whose_turn_is_next(count: int, length: int, budget: int) -> None:
    taken = select_batch([length] * count, budget)
    assert sorted(taken) == list(range(len(taken)))


def test_nothing_waits() -> None:
    assert select_batch([], 10) == []


def test_like_lengths_run_together() -> None:
    assert sorted(select_batch([10, 100, 11, 9], 1000)) == [0, 2, 3]
