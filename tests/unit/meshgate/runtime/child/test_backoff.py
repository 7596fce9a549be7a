"""A process that dies again and again is started ever later, up to a bound; a long life is forgiven."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshgate.runtime.child.backoff import Backoff


def test_it_doubles_up_to_a_bound() -> None:
    backoff = Backoff(first=1, longest=8, healthy=60)
    assert [backoff.after(1, 1.0) for _ in range(5)] == [1, 2, 4, 8, 8]


def test_a_long_life_begins_anew() -> None:
    backoff = Backoff(first=1, longest=8, healthy=60)
    for _ in range(4):
        backoff.after(1, 1.0)
    assert backoff.after(60, 1.0) == 1


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1)), min_size=1, max_size=100))
def test_it_never_waits_longer_than_its_bound_nor_less_than_half_of_the_first(lives: list[tuple[float, float]]) -> None:
    backoff = Backoff(first=0.5, longest=30)
    for lived, chance in lives:
        assert 0.25 <= backoff.after(lived, chance) <= 30
