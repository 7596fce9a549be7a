"""The generic cell rate algorithm (ITU-T I.371): a leaky bucket whose whole state is one time.

The state of a bucket is its theoretical arrival time (TAT): the moment when it will be full again. Each unit charged
moves the TAT on by the emission interval, the time in which one unit comes back. A charge is allowed while the TAT is
no further ahead than `burst` intervals. Nothing ticks: an idle bucket costs nothing, and a bucket whose TAT is in the
past is full and need not be stored.

Example: 100 requests a second with a burst of 200 have an emission interval of 10 ms and a capacity of 2 s. After 50
requests at once the TAT is 0.5 s ahead, and room for 150 is left. After 0.5 s without requests the bucket is full.

Times are integer nanoseconds. The interval is rounded up, so that never more is admitted than rate times time plus
burst, whatever the order of charges, refunds and clock readings. The functions are pure. State and clock are the
caller's. So is the decision, because a call is charged to several buckets or to none: ask `room` of each bucket, then
`charge` them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` units at once, and one more each `interval` nanoseconds."""

    interval: int
    burst: int
    capacity: int = field(init=False)
    """Nanoseconds in which an empty bucket fills."""

    def __post_init__(self) -> None:
        if self.interval < 1 or self.burst < 1:
            raise ValueError("interval and burst must be at least 1")
        object.__setattr__(self, "capacity", self.interval * self.burst)

    @classmethod
    def per_second(cls, rate: float, burst: int) -> Limit:
        """`rate` units a second, above 0 to 1e9. Raises ValueError."""
        if not 0 < rate <= SECOND:
            raise ValueError("rate must be above 0 to 1e9 a second")
        return cls(math.ceil(SECOND / rate), burst)

    @classmethod
    def per_minute(cls, rate: int, burst: int) -> Limit:
        """`rate` units a minute, 1 to 6e10. Raises ValueError."""
        if not 0 < rate <= 60 * SECOND:
            raise ValueError("rate must be 1 to 6e10 a minute")
        return cls(-(-60 * SECOND // rate), burst)

    def part(self, count: int) -> Limit:
        """One of `count` shares. A burst smaller than `count` leaves each share one unit."""
        return Limit(self.interval * count, max(1, self.burst // count))


def room(tat: int, now: int, limit: Limit) -> int:
    """The nanoseconds' worth of units that could be charged now; below 0 for a bucket with a negative balance.

    A new bucket's state is any past time.
    """
    return limit.capacity - tat + now if tat > now else limit.capacity


def wait(free: int, limit: Limit, units: int) -> int:
    """Nanoseconds until `units` could be charged to a bucket with `free` room, if no other call is charged; else 0.

    0 units can always be charged, even to a bucket with a negative balance. More units than the burst would wait for
    ever: the caller of this function asks for no more than that.
    """
    return max(0, units * limit.interval - free) if units else 0


def charge(tat: int, now: int, limit: Limit, units: int) -> int:
    """The state after `units` are charged, with room or without: without room the balance becomes negative."""
    return (tat if tat > now else now) + units * limit.interval


def refund(tat: int, now: int, limit: Limit, units: int) -> int:
    """The state after `units` that were charged come back. A bucket never gets fuller than full."""
    if units < 0:
        raise ValueError("units must be at least 0")
    full = tat if tat < now else now
    state = tat - units * limit.interval
    return state if state > full else full
