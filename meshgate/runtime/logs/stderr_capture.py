"""Standard error of a process, as part of its log: what libraries write there past every logger becomes JSON.

The descriptor that everybody knows, 2, becomes one end of a pipe, and pump.py at the other end writes to where standard
error really is. Our own log lines go there directly: `real()` is its descriptor, which child processes of ours get
too.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from typing import Final

from meshgate.runtime.logs import stderr_reader

STDERR: Final = 2
_END_SECONDS: Final = 2.0
_PUMPS: Final = 10
"""How many pumps a process starts, one after the other: more than that, and something kills them all."""
_CLOSED: Final = (os.O_WRONLY, os.O_RDONLY, os.O_RDWR)
"""How the null device replaces a closed standard descriptor. Reading from the first or writing to the second (a sink of
the audit log) fails as it should, and output to the third is dropped.
"""


class StderrCapture:
    """Standard error while a pump reads it. One for a process.

    The reading end stays open here too. So text that is written while a reader ends reaches the next one, and a writer
    never finds a pipe without a reader.
    """

    def __init__(self, service: str) -> None:
        """Raises OSError where the pump can't be started."""
        self._service = service
        self._ended = False
        self.real = fcntl.fcntl(STDERR, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
        self._reads, writes = os.pipe()
        try:
            self._pump = self._started()
            os.dup2(writes, STDERR)
        except OSError:
            os.close(self._reads)
            os.close(self.real)
            raise
        finally:
            os.close(writes)
        self._keeper = threading.Thread(target=self._keep, name="stderr", daemon=True)
        self._keeper.start()

    def end(self) -> None:
        """Standard error is what it was. Returns once everything has been written."""
        self._ended = True
        os.dup2(self.real, STDERR)
        self._keeper.join(_END_SECONDS)  # not for longer: a process that we started may still hold the pipe
        os.close(self._reads)

    def _started(self) -> subprocess.Popen[bytes]:
        # -I and -S: the pump needs no site-packages. A session of its own: it outlives us until all is written.
        command = (sys.executable, "-I", "-S", stderr_reader.__file__, self._service)
        return subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=self._reads, stdout=self.real, stderr=self.real, start_new_session=True
        )

    def _keep(self) -> None:
        """Starts another pump when one is killed. Where that can't be done, standard error is what it was."""
        for _ in range(_PUMPS):
            self._pump.wait()
            if self._ended:
                return
            try:
                self._pump = self._started()
            except OSError:
                break
        os.dup2(self.real, STDERR)


_captured: StderrCapture | None = None


def capture(service: str) -> None:
    """From here on. Where it can't be done, standard error stays as it is."""
    global _captured
    _complete()
    if _captured is None:
        try:
            _captured = StderrCapture(service)
        except OSError:
            return


def _complete() -> None:
    """Every standard descriptor is open, or the next file that is opened would be taken for it."""
    for number, flags in enumerate(_CLOSED):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest number that is free, which is this one
            os.set_inheritable(opened, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(STDERR, "w", buffering=1, errors="backslashreplace", closefd=False)


def release() -> None:
    """Standard error is what it was before `capture`, and what was written there is in the log."""
    global _captured
    captured, _captured = _captured, None
    if captured is not None:
        captured.end()


def real() -> int:
    """The descriptor of what standard error was when the process began."""
    return STDERR if _captured is None else _captured.real
