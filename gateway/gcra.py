"""The generic cell rate algorithm (ITU-T I.371): a leaky bucket whose whole state is one time.

A bucket is remembered as its theoretical arrival time (TAT), the moment when it will be full again. Each unit spent
moves the TAT on by the emission interval, the time that one unit takes to come back. A spend is allowed while the TAT
stays within the burst's worth of intervals from now. Nothing ticks: an idle bucket costs nothing, and one whose TAT is
past is full and needn't be remembered at all.

Times are integer nanoseconds. The interval is rounded up, so that never more is admitted than rate times time plus
burst, whatever the order of spends, refunds and clock readings. Pure: state and clock are the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` units at once, and one more each `interval` nanoseconds."""

    interval: int
    burst: int

    def __post_init__(self) -> None:
        if self.interval < 1 or self.burst < 1:
            raise ValueError("interval and burst must be at least 1")

    @classmethod
    def per_second(cls, rate: float, burst: int) -> Limit:
        """`rate` units a second, above 0 to 1e9. Raises ValueError."""
        if not 0 < rate <= SECOND:
            raise ValueError("rate must be above 0 to 1e9 a second")
        return cls(math.ceil(SECOND / rate), burst)


class Decision(NamedTuple):
    """What a spend came to."""

    allowed: bool
    tat: int
    """The bucket's state from now on; a refusal changes nothing."""
    retry_after: int
    """Nanoseconds until the same spend would be allowed, if nobody else spends. 0 when allowed."""
    remaining: int
    """Units that could be spent now, after this."""


def spend(tat: int, now: int, limit: Limit, cost: int = 1) -> Decision:
    """Takes `cost` units from the bucket in state `tat`, all or none. A new bucket's state is any past time.

    A cost of 0 is always allowed. Raises ValueError for one that is negative or larger than the burst, which no
    waiting would ever allow.
    """
    if not 0 <= cost <= limit.burst:
        raise ValueError(f"cost must be 0 to {limit.burst}")
    tat = max(tat, now)
    spent = tat + cost * limit.interval
    latest = now + limit.burst * limit.interval
    if cost and spent > latest:
        return Decision(False, tat, spent - latest, max(0, latest - tat) // limit.interval)
    return Decision(True, spent, 0, max(0, latest - spent) // limit.interval)


def refund(tat: int, now: int, limit: Limit, cost: int = 1) -> int:
    """The state after `cost` units that were spent come back. A bucket never gets fuller than full."""
    if cost < 0:
        raise ValueError("cost must be at least 0")
    return max(tat - cost * limit.interval, min(tat, now))
