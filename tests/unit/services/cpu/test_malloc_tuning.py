"""What is freed stays with the process, unless the environment says otherwise."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    getattr(ctypes.CDLL(None), "mallopt", None) is None, reason="the C library has no such settings"
)

FAULTS = """
import resource
from services.cpu import malloc_tuning

malloc_tuning.keep()

def take():
    made = bytearray(24 << 20)
    return len(made)

take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * (24 << 20) // os.sysconf("SC_PAGE_SIZE")


def faults(**environment: str) -> int:
    """Pages that the kernel handed out while 24 MiB were taken and freed ten times."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS]
    made = subprocess.run(command, env={**kept, **environment}, check=True, capture_output=True, text=True)
    return int(made.stdout)


def test_what_is_freed_is_taken_again_without_the_kernel() -> None:
    assert faults() < PAGES // 100


def test_the_environment_has_its_way() -> None:
    assert faults(MALLOC_MMAP_THRESHOLD_="131072") > PAGES // 2
