"""What each part of the mesh does, as far as the supervisor knows. Pure: the clock is passed in."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


class State(enum.Enum):
    """What a part does. The values are what people are told."""

    STARTING = "starting"
    """Its process runs and does not answer yet."""
    LOADING = "loading"
    """It answers and says that it does not serve."""
    SERVING = "serving"
    DEAD = "dead"
    """Its process ended; the next start is to come."""


@dataclass
class Part:
    """A part and since when, in seconds of the clock."""

    state: State
    begun: float
    """From when on it was waited for: its process started, or it stopped serving."""
    since: float
    """When its state began."""
    again: float = math.inf
    """When it is started again, if it is dead."""


class Board:
    """The states of all parts."""

    def __init__(self, names: Iterable[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self._parts = {name: Part(State.STARTING, now, now) for name in names}

    @property
    def parts(self) -> Mapping[str, Part]:
        """Each part by name, in the order given."""
        return self._parts

    @property
    def ready(self) -> bool:
        """Whether all serve."""
        return all(part.state is State.SERVING for part in self._parts.values())

    def started(self, name: str) -> None:
        """Its process was started."""
        now = self._clock()
        self._parts[name] = Part(State.STARTING, now, now)

    def died(self, name: str, wait: float) -> None:
        """Its process ended; it is started again in `wait` seconds."""
        now = self._clock()
        self._parts[name] = Part(State.DEAD, self._parts[name].begun, now, now + wait)

    def heard(self, name: str, state: State) -> bool:
        """Its health says `state`: whether that is news. The dead say nothing, so their last words are not heard."""
        part = self._parts[name]
        if part.state in (state, State.DEAD):
            return False
        now = self._clock()
        if part.state is State.SERVING:
            part.begun = now
        part.state, part.since = state, now
        return True

    def seconds(self, name: str) -> float:
        """Seconds that it took to serve, that it is waited for so far, or to its next start if it is dead."""
        part = self._parts[name]
        match part.state:
            case State.SERVING:
                return part.since - part.begun
            case State.DEAD:
                return max(0.0, part.again - self._clock())
        return self._clock() - part.begun
