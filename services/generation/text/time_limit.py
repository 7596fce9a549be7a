"""A bound on the time of Python code that is somebody else's: a chat template is a program, and can loop.

The code is interrupted between two of its instructions, by an exception that another thread puts into its own
(PyThreadState_SetAsyncExc). What runs outside of Python is interrupted when it comes back.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class TimeLimitExceeded(Exception):
    """The time was over."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeLimitExceeded in the block once so many seconds have passed."""
    watched = _Watched(threading.get_ident())
    timer = threading.Timer(seconds, watched.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        watched.end()


class _Watched:
    """A thread that may be interrupted until it says that it has ended."""

    def __init__(self, thread: int) -> None:
        self._thread = ctypes.c_ulong(thread)
        self._lock = threading.Lock()
        self._ended = False
        self._interrupted = False

    def interrupt(self) -> None:
        """For the other thread."""
        with self._lock:
            if not self._ended:
                self._interrupted = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(TimeLimitExceeded))

    def end(self) -> None:
        """No interruption comes after it."""
        with self._lock:
            self._ended = True
        if self._interrupted:
            self._receive()

    def _receive(self) -> None:
        """Receives the interruption, whether or not it has arrived before.

        Up to Python 3.12 only an exception that arrives ends the interpreter's search for it, at each jump and call. If
        it were cleared instead, all code would be slower for good, and would stand still when it is traced.
        """
        with suppress(TimeLimitExceeded):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(TimeLimitExceeded))
            while True:
                pass
