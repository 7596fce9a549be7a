"""A time limit on foreign Python code interrupts it, and leaves nothing behind when the code ends in time."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

import pytest

from services.generation.text.time_limit import TimeLimitExceeded, limited

TRACED = """
import sys
from services.generation.text.time_limit import TimeLimitExceeded, limited

def traced():
    return "went on"

try:
    with limited(float(sys.argv[1])):
        while sys.argv[2] == "loops":
            pass
except TimeLimitExceeded:
    pass
sys.settrace(lambda *_: None)
print(traced())
"""


def test_code_that_loops_is_interrupted() -> None:
    with pytest.raises(TimeLimitExceeded), limited(0.05):
        while True:
            pass


@pytest.mark.parametrize("arguments", [("60", "ends"), ("0.05", "loops")])
def test_the_code_after_it_can_be_traced(arguments: tuple[str, str]) -> None:
    command = [sys.executable, "-c", TRACED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "went on\n"


def test_an_interruption_that_comes_late_does_not_reach_the_code_after_it() -> None:
    for _ in range(200):
        with suppress(TimeLimitExceeded), limited(0.0005):
            time.sleep(0.0004)
        sum(range(2_000))
