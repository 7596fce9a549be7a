"""The calls that were not admitted, counted by the reason of their error. The code has few reasons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from meshgate.errors import MeshError


class AdmissionMark:
    """Whether one call has been admitted."""

    def __init__(self) -> None:
        self.is_admitted = False

    def admitted(self) -> None:
        """Marks the call as admitted. An error after this is no refusal."""
        self.is_admitted = True


class RefusalCounter:
    """The counts since the process started, by reason. For one event loop."""

    def __init__(self) -> None:
        self.by_reason: dict[str, int] = defaultdict(int)

    @contextmanager
    def counted(self) -> Iterator[AdmissionMark]:
        """Counts the MeshError that the block raises before the call is admitted."""
        mark = AdmissionMark()
        try:
            yield mark
        except MeshError as error:
            if not mark.is_admitted:
                self.by_reason[error.reason] += 1
            raise
