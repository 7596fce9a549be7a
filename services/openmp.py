"""How torch's OpenMP threads wait. Import it before torch, first thing in a service's `__main__`.

They otherwise spin while they wait for each other, and where cores are shared with other processes they spin while whom
they wait for cannot run: measured, steps became ten times slower.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
