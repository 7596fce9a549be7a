"""How torch's OpenMP threads wait. Import it before torch, first thing in a service's `__main__`.

They otherwise spin for as long as they wait for each other, and where cores are shared with other processes they spin
while whom they wait for cannot run: measured, steps became ten times slower. If they sleep at once, waking them takes
longer than most of what they are woken for. So they spin for as long as one product follows another, some tens of
microseconds, and then sleep; and where even that is too much a step takes fewer threads (`thread_tuner.py`).
"""

from __future__ import annotations

import os
import sys
from typing import Final

_SPINS: Final = 2000
"""Rounds of libgomp, which comes with torch on Linux: fewer left threads asleep between two products, ten times as many
gained nothing. It takes half of them where it has more threads than there are cores, asleep as they may be, which is so
once a model was loaded by one thread and is run by another; but none at all unless the policy is ACTIVE.
"""

if "OMP_WAIT_POLICY" not in os.environ:
    if sys.platform == "linux":
        os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
