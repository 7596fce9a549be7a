"""Standard error of a process, as part of its log: what libraries write there past every logger becomes JSON.

The descriptor that everybody knows, 2, becomes one end of a pipe, and pump.py at the other end writes to where standard
error really is. Our own log lines go there directly: `real()` is its descriptor, which child processes of ours get
too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from meshgate.runtime import pump

STDERR: Final = 2
_END_SECONDS: Final = 2.0


class Captured:
    """Standard error while a pump reads it. One for a process."""

    def __init__(self, service: str) -> None:
        """Raises OSError where the pump can't be started."""
        self.real = os.dup(STDERR)
        reads, writes = os.pipe()
        try:
            # -I and -S: the pump needs no site-packages. A session of its own: it outlives us until all is written.
            command = (sys.executable, "-I", "-S", pump.__file__, service)
            self._pump = subprocess.Popen(  # noqa: S603 - our own program
                command, stdin=reads, stdout=self.real, stderr=self.real, start_new_session=True
            )
            os.dup2(writes, STDERR)
        finally:
            os.close(reads)
            os.close(writes)

    def end(self) -> None:
        """Standard error is what it was. Returns once everything has been written."""
        os.dup2(self.real, STDERR)
        try:
            self._pump.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # a process that we started still holds the pipe
            return


_captured: Captured | None = None


def capture(service: str) -> None:
    """From here on. Where it can't be done, standard error stays as it is."""
    global _captured
    if _captured is None:
        try:
            _captured = Captured(service)
        except OSError:
            return


def release() -> None:
    """Standard error is what it was before `capture`, and what was written there is in the log."""
    global _captured
    captured, _captured = _captured, None
    if captured is not None:
        captured.end()


def real() -> int:
    """The descriptor of what standard error was when the process began."""
    return STDERR if _captured is None else _captured.real
