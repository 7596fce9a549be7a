"""What strangers can hold at once is one number."""

from __future__ import annotations

import pytest

from gateway.edge.concurrency import AdmissionGate
from meshgate import errors


def test_places_are_given_back() -> None:
    door = AdmissionGate(2)
    for _ in range(5):
        door.enter()
        door.enter()
        door.leave()
        door.leave()
    assert (door.inside, door.turned_away) == (0, 0)


def test_one_too_many_is_turned_away_and_holds_nothing() -> None:
    door = AdmissionGate(2)
    door.enter()
    door.enter()
    for _ in range(3):
        with pytest.raises(errors.Unavailable) as caught:
            door.enter()
        assert (caught.value.reason, caught.value.retry_after) == ("OVERLOADED", 1.0)
    assert (door.inside, door.turned_away) == (2, 3)
    door.leave()
    door.enter()
    assert door.inside == 2


def test_a_place_is_not_given_back_twice() -> None:
    door = AdmissionGate(1)
    door.enter()
    door.leave()
    with pytest.raises(RuntimeError):
        door.leave()
