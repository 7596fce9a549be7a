"""The replay cache: every envelope once, for as long as it could open, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate import errors
from meshgate.sealing.codec import ReplayCache

WINDOW_MS = 1000


def used(number: int) -> bytes:
    return number.to_bytes(32)


def test_an_envelope_is_admitted_once() -> None:
    cache = ReplayCache(WINDOW_MS, 10)
    cache.admit(used(1), 0)
    with pytest.raises(errors.InvalidArgument) as caught:
        cache.admit(used(1), 0)
    assert caught.value.reason == "SEAL_REPLAYED"
    cache.admit(used(2), 0)


@given(sealed_at=st.integers(-WINDOW_MS, WINDOW_MS), later=st.integers(0, 5 * WINDOW_MS))
def test_it_is_remembered_for_as_long_as_it_opens(sealed_at: int, later: int) -> None:
    """Whatever the sender's clock says: while the window still accepts it, the cache still knows it."""
    cache = ReplayCache(WINDOW_MS, 10)
    cache.admit(used(1), 0)
    if abs(later - sealed_at) <= WINDOW_MS:
        with pytest.raises(errors.InvalidArgument):
            cache.admit(used(1), later)


def test_a_full_cache_refuses_rather_than_forgets() -> None:
    cache = ReplayCache(WINDOW_MS, 2)
    cache.admit(used(1), 0)
    cache.admit(used(2), 0)
    with pytest.raises(errors.Unavailable) as caught:
        cache.admit(used(3), 0)
    assert caught.value.reason == "OVERLOADED"
    with pytest.raises(errors.InvalidArgument):
        cache.admit(used(1), 0)


def test_what_can_no_longer_open_makes_room() -> None:
    cache = ReplayCache(WINDOW_MS, 1)
    cache.admit(used(1), 0)
    cache.admit(used(2), 2 * WINDOW_MS + 1)


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    cache = ReplayCache(WINDOW_MS, 10)
    cache.admit(used(1), 10_000)
    cache.admit(used(2), 0)
    with pytest.raises(errors.InvalidArgument):
        cache.admit(used(1), 11_000)
