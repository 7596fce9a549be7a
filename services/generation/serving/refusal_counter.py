"""Calls that were not let in, counted by the reason that they were told. Reasons are our own words: there are few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from meshgate.errors import MeshError


class AdmissionMark:
    """One call's way in."""

    def __init__(self) -> None:
        self.passed = False

    def enter(self) -> None:
        """It is in: what becomes of it from here on is no refusal."""
        self.passed = True


class RefusalCounter:
    """The counts since the process began. For one event loop."""

    def __init__(self) -> None:
        self.by_reason: dict[str, int] = defaultdict(int)

    @contextmanager
    def counted(self) -> Iterator[AdmissionMark]:
        """Counts the MeshError that the block raises before the call has entered."""
        door = AdmissionMark()
        try:
            yield door
        except MeshError as error:
            if not door.passed:
                self.by_reason[error.reason] += 1
            raise
