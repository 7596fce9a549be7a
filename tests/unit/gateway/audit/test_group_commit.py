"""Group commit: a group waits for a part of a call's duration, and not at all where no more records will come."""

from __future__ import annotations

import pytest

from gateway.audit.group_commit import COMMIT_SIBLINGS, GroupCommit
from tests.support.fixtures.clock import Clock


def busy(commit: GroupCommit, clock: Clock[float], *, calls: int, seconds: float, rounds: int = 100) -> float:
    """So many calls always under way, each taking so long, for a while. Returns the delay of the end."""
    commit.in_flight = calls
    delay = 0.0
    for _ in range(rounds):
        clock.now += seconds  # in which each of them ends once, and is followed by another
        for _ in range(calls):
            commit.begin()
            commit.end()
        delay = commit.delay()
    return delay


@pytest.mark.parametrize("calls", [8, 32, 64])
def test_the_more_calls_the_longer_a_group_waits_and_not_the_longer_they_take(calls: int) -> None:
    for seconds in (0.1, 3):
        clock = Clock(100.0)
        assert busy(GroupCommit(1.0, clock), clock, calls=calls, seconds=seconds) == pytest.approx(
            calls * 0.0001, rel=1e-3
        )


@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.03])
def test_a_group_waits_no_longer_than_a_fifth_of_what_calls_take(seconds: float) -> None:
    clock = Clock(100.0)
    assert busy(GroupCommit(1.0, clock), clock, calls=64, seconds=seconds) == pytest.approx(seconds / 5, rel=0.01)


def test_it_never_waits_longer_than_configured() -> None:
    clock = Clock(100.0)
    assert busy(GroupCommit(0.02, clock), clock, calls=640, seconds=3) == 0.02
    assert busy(GroupCommit(0.0, clock), clock, calls=64, seconds=3) == 0


def test_it_does_not_wait_where_few_are_under_way() -> None:
    clock = Clock(100.0)
    assert busy(GroupCommit(0.02, clock), clock, calls=COMMIT_SIBLINGS - 1, seconds=0.05) == 0
    assert busy(GroupCommit(0.02, clock), clock, calls=COMMIT_SIBLINGS, seconds=0.05) > 0


def test_calls_whose_records_wait_already_are_no_company() -> None:
    clock = Clock(100.0)
    commit = GroupCommit(0.02, clock)
    busy(commit, clock, calls=COMMIT_SIBLINGS, seconds=0.05)
    commit.begin()
    assert commit.delay() == 0


def test_it_follows_the_load() -> None:
    clock = Clock(100.0)
    commit = GroupCommit(1.0, clock)
    slow = busy(commit, clock, calls=64, seconds=0.5)
    assert busy(commit, clock, calls=64, seconds=0.005) < slow / 5


def test_a_night_without_calls_is_soon_forgotten() -> None:
    clock = Clock(100.0)
    commit = GroupCommit(1.0, clock)
    busy(commit, clock, calls=64, seconds=0.002)
    clock.now += 8 * 3600
    assert busy(commit, clock, calls=64, seconds=0.002, rounds=30) == pytest.approx(0.0004, rel=0.6)
