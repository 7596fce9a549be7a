"""Memory that nobody uses any more goes back to the kernel, when nobody needs the processor."""

from __future__ import annotations

import subprocess
import sys

from meshgate.runtime.memory_trimming import MemoryTrimmer, Usage

MIB = 1 << 20


class Process:
    """Uses memory as it is told; a trim gives back all that is spare."""

    def __init__(self) -> None:
        self.resident = self.used = 100
        self.floor = 0
        self.cpu = self.now = 0.0
        self.trimmer = MemoryTrimmer(self.usage, self.trim, lambda: self.now)

    def usage(self) -> Usage:
        return Usage(self.resident * MIB, self.used * MIB, self.cpu)

    def trim(self) -> None:
        self.resident = self.used + self.floor

    def look(self, *, busy: bool = False) -> None:
        self.now += 5
        self.cpu += 5 if busy else 0
        self.trimmer.look()


def test_memory_that_became_free_goes_back_once() -> None:
    process = Process()
    process.look()
    process.resident = process.used = 300
    process.look()
    assert process.trimmer.trims == 0
    process.used = 110
    for _ in range(5):
        process.look()
    assert (process.resident, process.trimmer.trims) == (110, 1)


def test_memory_that_malloc_does_not_have_is_asked_for_once() -> None:
    process = Process()
    process.look()
    process.floor = 64
    process.resident += 64
    for _ in range(5):
        process.look()
    assert process.trimmer.trims == 1


def test_a_busy_process_is_left_alone_for_a_minute() -> None:
    process = Process()
    process.look()
    process.resident = 300
    for _ in range(11):
        process.look(busy=True)
    assert process.trimmer.trims == 0
    process.look(busy=True)
    assert process.trimmer.trims == 1


_PROGRAM = """
import ctypes
from pathlib import Path
from meshgate.runtime import memory_trimming
library = ctypes.CDLL(None)
library.mallinfo2.restype = memory_trimming._Mallinfo
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = (ctypes.c_size_t,)
library.free.argtypes = (ctypes.c_void_p,)
trimmer = memory_trimming.MemoryTrimmer(lambda: memory_trimming._usage(library), lambda: library.malloc_trim(0))
resident = lambda: memory_trimming._usage(library).resident >> 20
trimmer.look()
before = resident()
blocks = [library.malloc(8192) for _ in range(12_000)]
for block in blocks: ctypes.memset(block, 1, 8192)
kept = blocks[::64]
for number, block in enumerate(blocks):
    if number % 64: library.free(block)
held = resident()
for _ in range(13): trimmer.look()
print(held - before > 60, resident() - before < 30, trimmer.trims)
"""


def test_blocks_between_those_that_stay_go_back() -> None:
    """In a process of its own, with the C library's own allocator."""
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split() == ["True", "True", "1"], run.stderr
