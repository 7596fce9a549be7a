"""The promise of the rate core: never more than rate times time plus burst, and a retry when it says succeeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import gcra
from gateway.gcra import SECOND, Limit

limits = st.builds(Limit, interval=st.integers(1, 10 * SECOND), burst=st.integers(1, 1000))
moments = st.integers(0, 100 * SECOND)


def test_the_burst_at_once_and_no_more() -> None:
    limit = Limit(interval=10, burst=3)
    tat, admitted = 0, 0
    for _ in range(5):
        decision = gcra.spend(tat, 100, limit)
        tat = decision.tat
        admitted += decision.allowed
    assert admitted == 3


def test_remaining_counts_down_and_comes_back() -> None:
    limit = Limit(interval=10, burst=3)
    first = gcra.spend(0, 100, limit)
    assert first == (True, 110, 0, 2)
    assert gcra.spend(first.tat, 110, limit).remaining == 2
    assert gcra.spend(first.tat, 100, limit, 3) == (False, 110, 10, 2)


def test_a_refusal_changes_nothing() -> None:
    limit = Limit(interval=10, burst=2)
    tat = gcra.spend(0, 100, limit, 2).tat
    assert gcra.spend(tat, 100, limit).tat == tat


def test_an_idle_bucket_saves_up_no_more_than_its_burst() -> None:
    limit = Limit(interval=10, burst=2)
    assert gcra.spend(0, 1_000_000, limit, 2).allowed
    with pytest.raises(ValueError, match="cost"):
        gcra.spend(0, 1_000_000, limit, 3)


def test_a_refund_never_overfills() -> None:
    limit = Limit(interval=10, burst=2)
    tat = gcra.spend(0, 100, limit).tat
    assert gcra.refund(tat, 100, limit) == 100
    assert gcra.refund(tat, 100, limit, 50) == 100
    assert gcra.refund(tat, 500, limit) == tat


@pytest.mark.parametrize("cost", [-1, 4])
def test_a_cost_that_can_never_be_met_is_an_error(cost: int) -> None:
    with pytest.raises(ValueError, match="cost"):
        gcra.spend(0, 0, Limit(1, 3), cost)


@pytest.mark.parametrize("rate", [0, -1, 1e10])
def test_a_rate_has_a_range(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Limit.per_second(rate, 1)


@given(rate=st.floats(0.001, 1e6), burst=st.integers(1, 1000))
def test_an_interval_is_never_shorter_than_the_rate_says(rate: float, burst: int) -> None:
    assert Limit.per_second(rate, burst).interval * rate >= SECOND * (1 - 1e-12)


@given(
    limit=limits, start=moments, steps=st.lists(st.tuples(moments, st.booleans(), st.integers(0, 1000)), max_size=60)
)
def test_never_more_than_rate_times_time_plus_burst(
    limit: Limit, start: int, steps: list[tuple[int, bool, int]]
) -> None:
    """Over any order of spends and refunds, with a clock that jumps to and fro."""
    tat, held, readings = start, 0, [start]
    for now, spends, amount in steps:
        readings.append(now)
        if spends:
            decision = gcra.spend(tat, now, limit, min(amount, limit.burst))
            tat = decision.tat
            held += min(amount, limit.burst) if decision.allowed else 0
        else:
            amount = min(amount, held)
            tat = gcra.refund(tat, now, limit, amount)
            held -= amount
        elapsed = max(readings) - min(readings)
        assert held * limit.interval <= elapsed + limit.burst * limit.interval


@given(limit=limits, tat=moments, now=moments, cost=st.integers(0, 1000))
def test_a_retry_after_it_says_succeeds_and_one_sooner_fails(limit: Limit, tat: int, now: int, cost: int) -> None:
    cost = min(cost, limit.burst)
    decision = gcra.spend(tat, now, limit, cost)
    if decision.allowed:
        assert decision.retry_after == 0
        return
    assert gcra.spend(decision.tat, now + decision.retry_after, limit, cost).allowed
    assert not gcra.spend(decision.tat, now + decision.retry_after - 1, limit, cost).allowed


@given(limit=limits, tat=moments, now=moments, cost=st.integers(0, 1000))
def test_remaining_is_what_could_still_be_spent(limit: Limit, tat: int, now: int, cost: int) -> None:
    decision = gcra.spend(tat, now, limit, min(cost, limit.burst))
    assert gcra.spend(decision.tat, now, limit, decision.remaining).allowed
    if decision.remaining < limit.burst:
        assert not gcra.spend(decision.tat, now, limit, decision.remaining + 1).allowed
