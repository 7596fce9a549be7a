"""A time limit on foreign Python code interrupts it, and leaves nothing behind when the code ends in time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.generation.text.time_limit import TooLong, limited

TRACED = """
import sys
from services.generation.text.time_limit import limited

def traced():
    return "went on"

with limited(60):
    pass
sys.settrace(lambda *_: None)
print(traced())
"""


def test_code_that_loops_is_interrupted() -> None:
    with pytest.raises(TooLong), limited(0.05):
        while True:
            pass


def test_the_code_after_it_can_be_traced() -> None:
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "went on\n"
