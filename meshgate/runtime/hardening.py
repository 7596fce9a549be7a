"""What a process that holds keys or prompts keeps to itself, whatever becomes of it."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_SET_DUMPABLE: Final = 4
"""PR_SET_DUMPABLE, prctl(2)."""


def harden() -> None:
    """No core dump of this process, and of what it starts; and nobody but root reads its memory.

    A core dump is the memory on disk: keys and prompts in it. On Linux a process that is not dumpable can't be traced
    by others of its user either (ptrace(2), /proc/PID/mem, /proc/PID/environ). execve(2) makes a process dumpable
    again, so each process does this for itself.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
