"""How OpenMP's threads wait is said before torch is there, and not where somebody else has said it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASK = "import os, services.cpu.openmp; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"


def told(**said: str) -> str:
    bare = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    run = [sys.executable, "-c", ASK]
    return subprocess.run(run, env={**bare, **said}, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_they_spin_for_a_moment() -> None:
    assert told() == "ACTIVE 2000", "without ACTIVE libgomp spins for none where it has more threads than cores"


def test_what_the_environment_says_stays() -> None:
    assert told(OMP_WAIT_POLICY="PASSIVE") == "PASSIVE None"
    assert told(GOMP_SPINCOUNT="5").endswith(" 5")
