"""Which inputs run together: in budget, little padding, none for ever passed over."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.batching import take

PATIENCE = 5.0
NOW = 100.0


@dataclass(frozen=True)
class Waiting:
    length: int
    yields: bool = False
    since: float = 0.0


waiting = st.lists(st.builds(Waiting, st.integers(1, 300), st.booleans(), st.floats(0, NOW)), min_size=1, max_size=200)
budgets = st.integers(1, 2000)


def first(entries: list[Waiting]) -> int:
    """The input whose turn it is."""
    rank = [entry.yields and NOW - entry.since < PATIENCE for entry in entries]
    return min(range(len(entries)), key=lambda i: (rank[i], entries[i].since, i))


@given(waiting, budgets)
def test_a_batch_stays_in_budget_unless_one_input_is_more(entries: list[Waiting], budget: int) -> None:
    lengths = [entries[index].length for index in take(entries, budget, NOW, PATIENCE)]
    assert len(lengths) == 1 or max(lengths) * len(lengths) <= budget


@given(waiting, budgets)
def test_at_most_half_of_a_batch_is_padding(entries: list[Waiting], budget: int) -> None:
    lengths = [entries[index].length for index in take(entries, budget, NOW, PATIENCE)]
    assert max(lengths) * len(lengths) <= 2 * sum(lengths)


@given(waiting, budgets)
def test_whose_turn_it_is_runs(entries: list[Waiting], budget: int) -> None:
    assert first(entries) in take(entries, budget, NOW, PATIENCE)


@given(waiting, budgets)
def test_every_input_runs_exactly_once(entries: list[Waiting], budget: int) -> None:
    left, ran = list(enumerate(entries)), []
    while left:
        taken = set(take([entry for _, entry in left], budget, NOW, PATIENCE))
        ran += [left[index][0] for index in taken]
        left = [pair for index, pair in enumerate(left) if index not in taken]
    assert sorted(ran) == list(range(len(entries)))


def test_nothing_waits() -> None:
    assert take([], 10, NOW, PATIENCE) == []


def test_batch_traffic_lets_others_go_first() -> None:
    entries = [Waiting(10, yields=True, since=NOW - 1), Waiting(10, since=NOW)]
    assert take(entries, 10, NOW, PATIENCE) == [1]


def test_batch_traffic_that_waited_long_has_its_turn() -> None:
    entries = [Waiting(10, yields=True, since=NOW - PATIENCE), Waiting(10, since=NOW)]
    assert take(entries, 10, NOW, PATIENCE) == [0]


def test_batch_traffic_fills_what_is_free() -> None:
    entries = [Waiting(10, yields=True), Waiting(10)]
    assert sorted(take(entries, 20, NOW, PATIENCE)) == [0, 1]


def test_like_lengths_run_together() -> None:
    entries = [Waiting(10, since=1), Waiting(100, since=2), Waiting(11, since=3), Waiting(9, since=4)]
    assert sorted(take(entries, 1000, NOW, PATIENCE)) == [0, 2, 3]
