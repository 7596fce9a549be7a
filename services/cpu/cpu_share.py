"""How many threads of a CPU a batch is given where several run side by side.

While batches run one after the other each takes as many as were fastest lately (`thread_tuner.py`). Once some overlap
each has its part of the cores: at the end of each product threads wait for the last of them, and with more threads
than cores that one is not running. A batch that begins alone is soon joined where others were lately, and keeps what
it began with, so those count too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch

from services.cpu.thread_tuner import ThreadTuner

_LATELY: Final = 16
"""Batches."""


@contextmanager
def side_by_side() -> Iterator[None]:
    """Around batches that are run before anybody serves: those that do then have as many threads as before."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def threads_of(device: torch.device) -> int:
    """What a model there may have of a CPU's threads: none on another device."""
    return torch.get_num_threads() if device.type == "cpu" else 0


class CoreUsers:
    """Counts the batches that run in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._lately: deque[int] = deque(maxlen=_LATELY)

    @contextmanager
    def joined(self) -> Iterator[int]:
        """While a batch runs: how many run, itself included, as it begins, or ran as one of the last before it did."""
        with self._lock:
            self._count += 1
            self._lately.append(self._count)
            most = max(self._lately)
        try:
            yield most
        finally:
            with self._lock:
                self._count -= 1


EVERYBODY: Final = CoreUsers()
"""Of all models."""


class CpuShare:
    """The threads of one model's batches. Thread-safe."""

    def __init__(
        self,
        threads: int,
        *,
        serial: bool = False,
        company: CoreUsers = EVERYBODY,
        use: Callable[[int], object] = torch.set_num_threads,
    ) -> None:
        """`threads` is the most of all batches together; with less than two there is nothing to share. A `serial` model
        runs one batch at a time and always with all of them: what is compiled has their number in it.
        """
        self._threads = threads
        self._company = company
        self._use = use
        self._crew = ThreadTuner(threads, use)
        self._turn = threading.Lock() if serial else None

    @contextmanager
    def batch(self, tokens: int) -> Iterator[None]:
        """Around a batch of so many tokens, padding included, on the thread that runs it."""
        if self._turn is not None:
            with self._turn, self._company.joined():
                self._take(self._threads)
                yield
            return
        with self._company.joined() as most:
            if most == 1:  # so nobody else is with the crew
                with self._crew.reading(tokens):
                    yield
            else:
                self._take(max(1, self._threads // most))
                yield

    def _take(self, threads: int) -> None:
        if self._threads > 1:
            self._use(threads)
