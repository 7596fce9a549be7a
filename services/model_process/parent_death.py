"""How the process of the models ends: by whoever started it, and never by itself."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_SET_PARENT_DEATH_SIGNAL: Final = 1


def end_with_parent() -> None:
    """SIGINT and SIGTERM are the parent's, which lets calls end first. Once that is gone its connections are closed,
    which is heard between two batches; on Linux (prctl(2)) the kernel ends this one at once, whatever it is doing.
    """
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
