"""The rate core never admits more than rate times time plus burst, and a retry after its wait succeeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import gcra
from gateway.limits.gcra import SECOND, Limit

limits = st.builds(Limit, interval=st.integers(1, 10 * SECOND), burst=st.integers(1, 1000))
moments = st.integers(0, 100 * SECOND)
units = st.integers(0, 1000)


def take(tat: int, now: int, limit: Limit, least: int, cost: int) -> tuple[int, int | None]:
    """As much as there is from `least` to `cost`, as stores do: the state and what was taken; None for a refusal."""
    room = gcra.room(tat, now, limit)
    if gcra.wait(room, limit, least):
        return tat, None
    granted = min(cost, max(0, room) // limit.interval)
    return gcra.charge(tat, now, limit, granted), granted


def test_the_burst_at_once_and_no_more() -> None:
    limit = Limit(interval=10, burst=3)
    tat, taken = 0, []
    for _ in range(5):
        tat, granted = take(tat, 100, limit, 1, 1)
        taken.append(granted)
    assert taken == [1, 1, 1, None, None]


def test_room_goes_and_comes_back() -> None:
    limit = Limit(interval=10, burst=3)
    tat = gcra.charge(0, 100, limit, 2)
    assert [gcra.room(tat, now, limit) for now in (100, 105, 110, 120, 999)] == [10, 15, 20, 30, 30]


def test_as_much_as_there_is_between_the_least_and_the_cost() -> None:
    limit = Limit(interval=10, burst=10)
    tat, granted = take(0, 100, limit, 4, 7)
    assert granted == 7
    assert take(tat, 100, limit, 4, 7) == (tat, None)
    assert take(tat, 100, limit, 2, 7)[1] == 3


def test_what_was_overdrawn_is_owed() -> None:
    limit = Limit(interval=10, burst=3)
    tat = gcra.charge(0, 100, limit, 8)
    assert gcra.room(tat, 100, limit) == -50
    assert gcra.wait(-50, limit, 1) == 60
    assert gcra.wait(-50, limit, 0) == 0


def test_an_idle_bucket_saves_up_no_more_than_its_burst() -> None:
    assert gcra.room(0, 1_000_000, Limit(interval=10, burst=2)) == 20


def test_a_refund_never_overfills() -> None:
    limit = Limit(interval=10, burst=2)
    tat = gcra.charge(0, 100, limit, 1)
    assert gcra.refund(tat, 100, limit, 1) == 100
    assert gcra.refund(tat, 100, limit, 50) == 100
    assert gcra.refund(tat, 500, limit, 1) == tat
    with pytest.raises(ValueError, match="units"):
        gcra.refund(tat, 500, limit, -1)


@pytest.mark.parametrize("rate", [0, -1, 1e11])
def test_a_rate_has_a_range(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Limit.per_second(rate, 1)
    with pytest.raises(ValueError, match="rate"):
        Limit.per_minute(int(rate), 1)


@given(rate=st.floats(0.001, 1e6), burst=st.integers(1, 1000))
def test_an_interval_is_never_shorter_than_the_rate_says(rate: float, burst: int) -> None:
    assert Limit.per_second(rate, burst).interval * rate >= SECOND * (1 - 1e-12)


@given(rate=st.integers(1, 10**9), burst=st.integers(1, 1000))
def test_nor_than_the_rate_of_a_minute_says(rate: int, burst: int) -> None:
    assert Limit.per_minute(rate, burst).interval * rate >= 60 * SECOND


@given(limit=limits, count=st.integers(1, 100))
def test_shares_are_no_more_than_the_whole(limit: Limit, count: int) -> None:
    part = limit.part(count)
    assert part.interval == limit.interval * count
    assert part.burst * count <= limit.burst or part.burst == 1


@given(limit=limits, start=moments, steps=st.lists(st.tuples(moments, st.booleans(), units, units), max_size=60))
def test_never_more_than_rate_times_time_plus_burst(
    limit: Limit, start: int, steps: list[tuple[int, bool, int, int]]
) -> None:
    """Over any order of charges, whole or in part, and refunds, with a clock that jumps to and fro."""
    tat, held, readings = start, 0, [start]
    for now, charges, amount, more in steps:
        readings.append(now)
        if charges:
            tat, granted = take(tat, now, limit, amount, amount + more)
            assert granted is None or amount <= granted <= amount + more
            held += granted or 0
        else:
            amount = min(amount, held)
            tat = gcra.refund(tat, now, limit, amount)
            held -= amount
        elapsed = max(readings) - min(readings)
        assert held * limit.interval <= elapsed + limit.burst * limit.interval


@given(limit=limits, tat=moments, now=moments, cost=units)
def test_a_retry_after_it_says_succeeds_and_one_sooner_fails(limit: Limit, tat: int, now: int, cost: int) -> None:
    cost = min(cost, limit.burst)
    wait = gcra.wait(gcra.room(tat, now, limit), limit, cost)
    if wait:
        assert gcra.wait(gcra.room(tat, now + wait, limit), limit, cost) == 0
        assert gcra.wait(gcra.room(tat, now + wait - 1, limit), limit, cost) == 1
