"""How many of its threads a step on a CPU is given, found out while it runs.

A step is some two hundred short products, and at the end of each the threads wait for the last of them. Where cores
are idle, all threads together are faster, the more so the more rows there are; where other processes want the cores,
each of those waits may be for a thread that is not running, and one thread alone can be several times faster. Which it
is changes from one second to the next, so it is measured: steps of like size run with what was fastest lately, and now
and then one of them tries another number, less often the worse that was. What a step says in bfloat16 does not depend
on it; in float32 its last bits do, so generation always uses all threads there, and the same input says the same. (Of
an encoder they depend on what else is in the batch, too.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import torch

THREADS: Final = torch.get_num_threads()
"""One a core, or what OMP_NUM_THREADS says. torch starts new threads with what any thread asked for last, so it is read
before one does.
"""
_LEARNT: Final = 0.25
"""Of the newest step in what is known of a number of threads."""
_FIRST, _SOONEST, _LATEST = 2, 16, 1024
"""Steps before one tries another number: at first, then at least, and at most."""
_TRIES: Final = 3
"""Steps of a trial. The first does not count: what multiplies with so many threads may have to be made."""
_MUCH: Final = 1.05
"""So many times slower, beyond what chance makes of two steps, and it is tried half as often."""


class ThreadTuner:
    """For the one thread that runs steps."""

    def __init__(
        self,
        threads: int,
        use: Callable[[int], object] = torch.set_num_threads,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`threads` is the most; one, two, four ... and it are tried. With less than two, nothing is."""
        self._numbers = [*(2**power for power in range(threads.bit_length()) if 2**power < threads), threads]
        self._use = use
        self._clock = clock
        self._sizes: dict[tuple[str, int], _Size] = {}

    def decoding(self, rows: int) -> AbstractContextManager[None]:
        """Around a step of so many rows."""
        return self._step(("decode", _like(rows)), 1)

    def reading(self, tokens: int) -> AbstractContextManager[None]:
        """Around a piece of a prompt; what it takes is counted by the token."""
        return self._step(("read", _like(tokens)), tokens)

    @contextmanager
    def _step(self, key: tuple[str, int], count: int) -> Iterator[None]:
        """One that fails says nothing of its time."""
        if len(self._numbers) == 1:
            yield
            return
        size = self._sizes.setdefault(key, _Size(len(self._numbers)))
        choice = size.next()
        self._use(self._numbers[choice])
        began = self._clock()
        yield
        size.learn(choice, (self._clock() - began) / count)


class _Size:
    """What is known of steps of like size. A choice is an index into the numbers of threads."""

    def __init__(self, choices: int) -> None:
        self._seconds: list[float | None] = [None] * choices
        self._best = self._tried = choices - 1
        self._trial: list[float] = []
        """What the steps of the trial took that is under way."""
        self._wait, self._left = _SOONEST, _FIRST

    def next(self) -> int:
        """The best there is; or one beside it, in turn the next smaller and the next larger."""
        self._left -= 1
        if self._left > 0:
            return self._best
        if not self._trial:
            self._tried = self._beside()
        return self._tried

    def _beside(self) -> int:
        last = len(self._seconds) - 1
        if self._best in (0, last):
            return 1 if self._best == 0 else last - 1
        return self._best + 1 if self._tried < self._best else self._best - 1

    def learn(self, choice: int, seconds: float) -> None:
        """A step with that choice took so long."""
        if choice != self._best:
            self._try(choice, seconds)
            return
        known = self._seconds[choice]
        self._seconds[choice] = now = seconds if known is None else known + _LEARNT * (seconds - known)
        if any(each is not None and each < now for each in self._seconds):
            self._left = min(self._left, 1)  # it became slow: how fast is another now?

    def _try(self, choice: int, seconds: float) -> None:
        self._trial.append(seconds)
        if len(self._trial) < _TRIES:
            return
        tried, best = sum(self._trial[1:]) / (_TRIES - 1), self._seconds[self._best]
        self._trial.clear()
        self._seconds[choice] = tried
        self._wait = min(self._wait * 2, _LATEST) if best is not None and tried > best * _MUCH else _SOONEST
        if best is None or tried < best:
            # What is known of others is of other times, and none but those beside the best are tried.
            self._seconds = [tried if each == choice else None for each in range(len(self._seconds))]
            self._best, self._wait = choice, _SOONEST
        self._left = self._wait


def _like(count: int) -> int:
    """The same for counts of which the larger is at most half as much again: by their two first bits."""
    bits = max(count.bit_length() - 2, 0)
    return bits * 4 + (count >> bits)
