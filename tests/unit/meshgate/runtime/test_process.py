"""What the start of a process leaves behind."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from meshgate.runtime import process
before = len(gc.get_objects())
process.tune_gc()
print(gc.get_freeze_count() > before / 2, len(gc.get_objects()) < before / 2, gc.get_threshold()[0] > 700)
"""


def test_the_collector_no_longer_visits_what_the_start_made() -> None:
    """In a process of its own, because the effect is permanent."""
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["True"] * 3
