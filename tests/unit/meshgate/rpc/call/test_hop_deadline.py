"""What a hop keeps of a deadline."""

from __future__ import annotations

import pytest

from meshgate.rpc.call import hop_deadline

SEEN = 0.08
"""Seconds after the service's own deadline at which answers came, of callers who waited for one second."""


@pytest.mark.parametrize(
    ("remaining", "kept"), [(0.05, 0.02), (0.2, 0.02), (0.5, 0.05), (1.0, 0.1), (2.0, 0.2), (10.0, 0.2), (600.0, 0.2)]
)
def test_a_hop_keeps_a_tenth_within_bounds(remaining: float, kept: float) -> None:
    assert hop_deadline.reserved_for_return(remaining) == pytest.approx(kept)


def test_at_a_second_the_gateway_still_waits_when_an_answer_is_late() -> None:
    """The service ends an answer by what it keeps itself; the gateway waits for what is late by as much as was seen."""
    gateway = 1.0 - hop_deadline.reserved_for_return(1.0)
    service = gateway - hop_deadline.reserved_for_return(gateway)
    assert gateway - service >= SEEN
