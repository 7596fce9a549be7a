"""Refusals of strangers, recorded at a bounded rate: a flood of bad tokens must not fill the disk that audits it.

Every refusal is accounted for, but not every one by a record of its own. Whoever is refused before a principal is known
costs an attacker one packet and no secret, while a record of its own costs us some 700 bytes for ever and a place in a
group commit that known callers wait for. So the first few refusals of a network address in each second are recorded
singly, as any call is; those beyond are counted by address and reason, and each second of counting leaves one record
with the count and the times of the first and the last. Nothing is lost that an investigator could use: which address,
why, how often and when remain; request ids and ports of the repeats don't.

What is known of a caller with a good token is always recorded singly: that is bounded by its limits. A crash loses at
most the counts of its last second, never a call that was let in.

Addresses are many too (an IPv6 host has 2**64), so an IPv6 address counts as its /64, and at most `peers` are told
apart in one second; the rest share one count under the name OTHERS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import unquote

from pydantic import Field

from meshgate.runtime.config import Strict

OTHERS: Final = "others"
_NETWORK_BITS: Final = 64
_MAX_REASONS: Final = 32
_SECOND: Final = 1_000_000


class FloodConfig(Strict):
    """When refusals of strangers are recorded in sums."""

    singly_per_second: int = Field(20, ge=1, le=100_000)
    """How many of one address are recorded singly in one second."""
    singly_per_second_in_all: int = Field(200, ge=1, le=1_000_000)
    """How many of all addresses together: many addresses are no more expensive than one."""
    peers: int = Field(1000, ge=1, le=100_000)
    """How many addresses are told apart in one second; each is one record at most, and a reason."""


@dataclass(slots=True)
class Sum:
    """Refusals of one address for one reason that have no record of their own. Times are microseconds, Unix epoch."""

    peer: str
    reason: str
    count: int
    first: int
    last: int


class Flood:
    """Decides which refusals are recorded singly and sums up the others. Memory and records a second are bounded."""

    def __init__(self, config: FloodConfig, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since the Unix epoch."""
        self.summed = 0
        """Refusals without a record of their own, since the start."""
        self._config = config
        self._clock = clock
        self._second = -1
        self._singly: dict[str, int] = {}
        self._in_all = 0
        self._sums: dict[tuple[str, str], Sum] = {}

    def singly(self, peer: str, reason: str) -> bool:
        """Whether this refusal gets a record of its own. If not it has been counted, and `due` will tell of it.

        `peer` is gRPC's name of it (`ipv4:192.0.2.1:50000`), `reason` that of the refusal.
        """
        now = self._clock()
        self._turn(now)
        address = self._known(network(peer))
        if self._take(address) and self._in_all < self._config.singly_per_second_in_all:
            self._in_all += 1
            return True
        self._count(address, reason, now)
        return False

    def due(self) -> list[Sum]:
        """The sums so far, each told once. To be asked once a second while `waiting`, and at the end."""
        sums, self._sums = list(self._sums.values()), {}
        return sums

    @property
    def waiting(self) -> bool:
        """Whether there are sums that `due` has not told."""
        return bool(self._sums)

    def _turn(self, now: int) -> None:
        """Begins a new second."""
        if now // _SECOND != self._second:
            self._second = now // _SECOND
            self._singly = {}
            self._in_all = 0

    def _known(self, address: str) -> str:
        if address in self._singly or len(self._singly) < self._config.peers:
            return address
        return OTHERS

    def _take(self, address: str) -> bool:
        taken = self._singly.get(address, 0)
        self._singly[address] = taken + 1
        return taken < self._config.singly_per_second

    def _count(self, address: str, reason: str, now: int) -> None:
        self.summed += 1
        key = (address, reason)
        if key not in self._sums and len(self._sums) >= self._config.peers + _MAX_REASONS:
            key = (OTHERS, OTHERS)
        found = self._sums.get(key)
        if found is None:
            self._sums[key] = Sum(*key, count=1, first=now, last=now)
        else:
            found.count += 1
            found.last = now


def network(peer: str) -> str:
    """The part of a peer's name that it can't choose freely: its IPv4 address, its IPv6 /64, else what kind it is."""
    kind, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return kind
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    prefix = int(address) >> _NETWORK_BITS << _NETWORK_BITS
    return f"{IPv6Address(prefix)}/{_NETWORK_BITS}"
