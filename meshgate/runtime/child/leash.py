"""Ties a process to its supervisor, then becomes it: `leash.py SUPERVISOR_PID COMMAND...`.

On Linux the kernel then sends the process SIGKILL when the supervisor dies in whatever way, SIGKILL included
(PR_SET_PDEATHSIG, prctl(2); it outlives execve). SIGKILL because one that hangs would survive anything less, and the
audit log is whole after a crash by construction. Elsewhere there is no such thing, and a killed supervisor leaves its
children.

This is a program of its own, not a `preexec_fn`: Python code between fork and exec can deadlock in a process that has
threads, and the supervisor has gRPC's. It imports nothing of ours, so it costs a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Becomes the command, which the kernel kills when its supervisor dies."""
    supervisor, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(supervisor):  # it died before the kernel was asked
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the supervisor's own
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
