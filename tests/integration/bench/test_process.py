"""What processes take of the machine is what they and their children took."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench import process

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass\\n"
    "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def test_cpu_and_memory_are_the_whole_familys(tmp_path: Path) -> None:
    told = tmp_path / "child"
    os.mkfifo(told)
    with process.running((sys.executable, "-c", PARENT, str(told)), tmp_path / "log") as pid:
        child = int(told.read_text())  # waits for who writes
        family = process.family([pid])
        assert family == [pid, child]
        assert process.cpu_seconds([child]) >= 0.3
        assert process.cpu_seconds(family) >= process.cpu_seconds([pid]) + 0.3
        assert process.resident_bytes(family) > process.resident_bytes([child]) > 1_000_000
