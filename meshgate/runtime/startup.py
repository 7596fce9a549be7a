"""How every process begins and ends: it keeps its memory to itself, and all that it says is in its log."""

from __future__ import annotations

import contextlib
import sys

from meshgate.runtime import hardening
from meshgate.runtime.logs import log, stderr_capture


def begin(name: str) -> None:
    """First of all. `name` is what the log calls the process."""
    hardening.harden()
    stderr_capture.capture(name)
    log.configure(name)
    log.hook()


def end() -> None:
    """Last of all: returns once everything is written."""
    with contextlib.suppress(OSError):  # its reader may have ended
        sys.stderr.flush()
    stderr_capture.release()
