"""What the start of a process leaves behind."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from meshgate.runtime import process
before = len(gc.get_objects())
process.settle()
print(gc.get_freeze_count() > before / 2, len(gc.get_objects()) < before / 2, gc.get_threshold()[0] > 700)
"""


def test_what_the_start_made_is_out_of_the_collectors_sight() -> None:
    """In a process of its own: it is for good."""
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["True"] * 3
