"""Memory that the C library keeps after many connections ended, given back to the kernel in a quiet moment.

gRPC allocates some 70 KiB for each connection, in small blocks among those of other connections. When thousands of
connections end, glibc keeps their pages until malloc_trim(3) is called. That takes some tens of milliseconds, in which
other threads wait for memory. So it is called only if enough is spare and the process has little to do.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

_LOOK_SECONDS: Final = 5.0
_WORTH: Final = 16 << 20
"""Bytes that the kernel would get back, from which on it is worth it."""
_QUIET: Final = 0.3
"""Of a core, in the time between two looks."""
_PATIENCE: Final = 12
"""Looks after which it is done although the process is busy."""


class Usage(NamedTuple):
    """Bytes of this process, and how much it worked."""

    resident: int
    used: int
    """Bytes that malloc has given out."""
    cpu: float
    """Seconds since the start of the process."""


_COUNTS: Final = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")
_SIZES: Final = ("fordblks", "keepcost")


class _Mallinfo(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*_COUNTS, "uordblks", *_SIZES))


class MemoryTrimmer:
    """Looks every few seconds, on a thread of its own. Without glibc it does nothing."""

    def __init__(
        self, usage: Callable[[], Usage], trim: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trims = 0
        """How often memory was given back."""
        self._usage = usage
        self._trim = trim
        self._clock = clock
        self._spare: int | None = None
        self._since = 0
        self._cpu, self._at = 0.0, 0.0

    def look(self) -> None:
        """Gives memory back if more is spare than after the last time and the processor is idle."""
        found, now = self._usage(), self._clock()
        busy = (found.cpu - self._cpu) / max(now - self._at, 1e-9) > _QUIET
        self._cpu, self._at = found.cpu, now
        spare = found.resident - found.used
        self._spare = spare if self._spare is None else min(spare, self._spare)
        if spare - self._spare < _WORTH:
            self._since = 0
            return
        self._since += 1
        if not busy or self._since >= _PATIENCE:
            self._give_back()

    def _give_back(self) -> None:
        self._trim()
        self.trims += 1
        after = self._usage()
        self._spare, self._since = after.resident - after.used, 0


def start() -> Callable[[], None]:
    """Looks from here on; the process's start is over. Returns what stops it."""
    library = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(library, "mallinfo2"):
        return lambda: None
    library.mallinfo2.restype = _Mallinfo
    trimmer = MemoryTrimmer(lambda: _usage(library), lambda: library.malloc_trim(0))
    stopped = threading.Event()
    thread = threading.Thread(target=_look, args=(trimmer, stopped), name="trimmer", daemon=True)
    thread.start()
    return stopped.set


def _look(trimmer: MemoryTrimmer, stopped: threading.Event) -> None:
    while not stopped.wait(_LOOK_SECONDS):
        trimmer.look()


def _usage(library: ctypes.CDLL) -> Usage:
    found = library.mallinfo2()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), found.uordblks + found.hblkhd, spent.ru_utime + spent.ru_stime)
