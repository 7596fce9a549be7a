"""Places for what callers hold without a token: a bound for all of them, and one for each network address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from meshgate import errors

_RETRY_SECONDS = 1.0


class ConnectionSlots:
    """Counts who holds a place. For one event loop."""

    def __init__(self, most: int, most_each: int | None = None) -> None:
        """`most` is how many places there are, `most_each` how many of them one address can have at once."""
        self.inside = 0
        """Places that are taken."""
        self.turned_away = 0
        """Callers who found none, since the start."""
        self._most = most
        self._most_each = most if most_each is None else most_each
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Holds a place. Raises LimitExceeded (OVERLOADED) where the address, or all together, have what they may."""
        self._take(address)
        try:
            yield
        finally:
            self._give_back(address)

    def _take(self, address: str) -> None:
        if self.inside >= self._most or self._by_address[address] >= self._most_each:
            self.turned_away += 1
            raise errors.LimitExceeded("too many such calls at once", reason="OVERLOADED", retry_after=_RETRY_SECONDS)
        self.inside += 1
        self._by_address[address] += 1

    def _give_back(self, address: str) -> None:
        self.inside -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
