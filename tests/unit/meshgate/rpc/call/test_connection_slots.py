"""Places are bounded for all together and for each address, and are given back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from meshgate import errors
from meshgate.rpc.call.connection_slots import ConnectionSlots


def test_one_address_cannot_have_all_places() -> None:
    places = ConnectionSlots(4, 2)
    with ExitStack() as stack:
        for address in ("a", "a", "b"):
            stack.enter_context(places.place(address))
        with pytest.raises(errors.LimitExceeded) as caught, places.place("a"):
            raise AssertionError("a third place of one address")
        assert (caught.value.reason, caught.value.retry_after) == ("OVERLOADED", 1.0)
        stack.enter_context(places.place("c"))
        with pytest.raises(errors.LimitExceeded), places.place("d"):
            raise AssertionError("a fifth place")
        assert (places.inside, places.turned_away) == (4, 2)
    assert places.inside == 0


def test_a_place_is_given_back_whatever_happens() -> None:
    places = ConnectionSlots(1, 1)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), places.place("a"):
            raise ValueError("x")
    assert (places.inside, places.turned_away) == (0, 0)
