"""The door: how many callers may be inside before anyone knows who they are.

Behind authentication every caller has limits of its own. Before it nobody has a name, so what strangers can hold at
once is one number for all of them: a flood of bad tokens fills it, and is refused from there on without a signature
checked, a key looked for or a record waited for. A caller who is known leaves the door at once, so that those inside
are only ever the ones being looked at.
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
        """Takes a place, which the same call gives back. Raises Unavailable (OVERLOADED) if none is free."""
        if self.inside >= self.most:
            self.turned_away += 1
            raise errors.Unavailable("too many callers at once", reason="OVERLOADED", retry_after=_RETRY_SECONDS)
        self.inside += 1

    def leave(self) -> None:
        """Gives the place back: the principal is known, or the call has been refused. Once for each `enter`."""
        if self.inside == 0:
            raise RuntimeError("nobody is inside")
        self.inside -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place. Raises Unavailable (OVERLOADED)."""
        self.enter()
        try:
            yield
        finally:
            self.leave()


class ConnectionAdmission:
    """Both doors: that of all calls, and behind it that of strangers."""

    __slots__ = ("calls", "strangers")

    def __init__(self, most_calls: int, most_strangers: int) -> None:
        self.calls = AdmissionGate(most_calls)
        self.strangers = AdmissionGate(most_strangers)

    def enter(self, call: Call) -> None:
        """Lets a call in as a stranger. Raises Unavailable (OVERLOADED)."""
        self.calls.enter()
        try:
            self.strangers.enter()
        except errors.Unavailable:
            self.calls.leave()
            raise
        call.inside = True

    @contextmanager
    def visit(self) -> Iterator[None]:
        """The same for a call of which nobody will know the principal. Raises Unavailable (OVERLOADED)."""
        with self.calls.place(), self.strangers.place():
            yield

    def known(self, call: Call) -> None:
        """The call's principal is known from here on: it is no stranger any more."""
        if call.inside and call.principal is not None:
            self.strangers.leave()

    def leave(self, call: Call) -> None:
        """The call is over, whatever became of it."""
        if call.inside:
            call.inside = False
            self.calls.leave()
            if call.principal is None:
                self.strangers.leave()
