"""What each hop keeps back of a deadline, so that there is time left to return an answer, or to say that it is late.

The gateway makes an audit record durable and both have to be scheduled, which takes longer where a machine is busy.
So it is a part of the time that is left, within bounds: a caller who waits for seconds misses a fifth of one at most
for each hop.
"""

from __future__ import annotations

from typing import Final

LEAST: Final = 0.02
MOST: Final = 0.2
_PART: Final = 0.1


def reserved_for_return(remaining: float) -> float:
    """Seconds to keep back of `remaining`."""
    return min(max(LEAST, _PART * remaining), MOST)
