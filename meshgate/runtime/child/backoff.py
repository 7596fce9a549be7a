"""How long to wait before a process that died is started again. Pure: time and chance are passed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Backoff:
    """Doubles with each death in a row, up to a bound; a life long enough begins the count anew."""

    first: float = 0.5
    longest: float = 30.0
    healthy: float = 60.0
    """A process that lived so many seconds was well."""
    deaths: int = 0

    def after(self, lived: float, chance: float) -> float:
        """Seconds to wait after a process that lived `lived` seconds; `chance`, 0 to 1, spreads them by half."""
        self.deaths = 1 if lived >= self.healthy else self.deaths + 1
        wait = min(self.longest, self.first * 2.0 ** (self.deaths - 1))
        return wait * (0.5 + 0.5 * chance)
