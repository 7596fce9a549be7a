"""The admission gate: a bound on calls whose caller is not authenticated yet.

After authentication every caller has limits of its own. Before it callers have no name, so one number bounds all of
them together. A flood of bad tokens fills it. Further calls are then refused before a signature is checked, a key is
looked up or a record is awaited. An authenticated call leaves the gate at once, so only calls in authentication count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.call import Call
from meshgate import errors

_RETRY_SECONDS = 1.0


class AdmissionGate:
    """Counts the calls whose principal is not known yet. For one event loop."""

    __slots__ = ("inside", "most", "turned_away")

    def __init__(self, most: int) -> None:
        """`most` is how many may be inside at once."""
        self.most = most
        self.inside = 0
        """Calls between `enter` and `leave`."""
        self.turned_away = 0
        """Calls that found no room, since the start."""

    def enter(self) -> None:
        """Takes a slot, which the same call gives back. Raises Unavailable (OVERLOADED) if none is free."""
        if self.inside >= self.most:
            self.turned_away += 1
            raise errors.Unavailable("too many callers at once", reason="OVERLOADED", retry_after=_RETRY_SECONDS)
        self.inside += 1

    def leave(self) -> None:
        """Gives the slot back: the principal is known, or the call has been refused. Once for each `enter`."""
        if self.inside == 0:
            raise RuntimeError("nobody is inside")
        self.inside -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a slot. Raises Unavailable (OVERLOADED)."""
        self.enter()
        try:
            yield
        finally:
            self.leave()


class ConnectionAdmission:
    """Two gates: one for all calls, and one for those of unauthenticated callers."""

    __slots__ = ("calls", "strangers")

    def __init__(self, most_calls: int, most_strangers: int) -> None:
        self.calls = AdmissionGate(most_calls)
        self.strangers = AdmissionGate(most_strangers)

    def enter(self, call: Call) -> None:
        """Counts a call as that of an unauthenticated caller. Raises Unavailable (OVERLOADED)."""
        self.calls.enter()
        try:
            self.strangers.enter()
        except errors.Unavailable:
            self.calls.leave()
            raise
        call.inside = True

    @contextmanager
    def visit(self) -> Iterator[None]:
        """The same for a call that will never have a principal. Raises Unavailable (OVERLOADED)."""
        with self.calls.place(), self.strangers.place():
            yield

    def known(self, call: Call) -> None:
        """Stops counting the call as unauthenticated, because its principal is known."""
        if call.inside and call.principal is not None:
            self.strangers.leave()

    def leave(self, call: Call) -> None:
        """Gives the call's slots back when it ends, successful or not."""
        if call.inside:
            call.inside = False
            self.calls.leave()
            if call.principal is None:
                self.strangers.leave()
