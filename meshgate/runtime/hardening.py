"""Protection of a process's memory, which holds keys and prompts: no core dump and no tracing."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_SET_DUMPABLE: Final = 4
"""PR_SET_DUMPABLE, prctl(2)."""


def harden() -> None:
    """Forbids core dumps of this process and its children; only root can read its memory.

    A core dump is the memory on disk, with keys and prompts in it. On Linux, other processes of the user cannot trace
    a process that is not dumpable. That covers ptrace(2), /proc/PID/mem and /proc/PID/environ. execve(2) makes a
    process dumpable again, so each process does this for itself.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
