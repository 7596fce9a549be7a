"""Refusals, recorded at a bounded rate: a flood of them must not fill the disk that audits it.

Every refusal is accounted for, but not every one by a record of its own. A refusal costs who asks for it one packet,
while a record of its own costs us some 700 bytes for ever and a place in a group commit that others wait for. So the
first few refusals of a caller in each second are recorded singly, as any call is; those beyond are counted by caller
and reason, and each second of counting leaves one record with the count and the times of the first and the last.
Nothing is lost that an investigator could use: who, why, how often and when remain; request ids, methods and ports of
the repeats don't.

A caller is the tenant and subject of a good token, and else the network address. The two are counted apart, so that
strangers can't use up what callers have. Only what was not let in is summed: calls that are let in are bounded by
limits and have records of their own. A crash loses at most the counts of its last second.

Addresses are many (an IPv6 host has 2**64), so an IPv6 address counts as its /64; and subjects are many where an issuer
makes them up. So at most `peers` addresses and `callers` subjects are told apart in one second. The rest share a count:
addresses under the name OTHERS, subjects that of their tenant, without a subject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple
from urllib.parse import unquote

from pydantic import Field

from meshgate.runtime.config import Strict

OTHERS: Final = "others"
_NETWORK_BITS: Final = 64
_MAX_REASONS: Final = 32
_SECOND: Final = 1_000_000


class RefusalAggregatorConfig(Strict):
    """When refusals are recorded in sums."""

    singly_per_second: int = Field(20, ge=1, le=100_000)
    """How many of one stranger's address are recorded singly in one second."""
    singly_per_second_in_all: int = Field(200, ge=1, le=1_000_000)
    """How many of all addresses together: many addresses are no more expensive than one."""
    peers: int = Field(1000, ge=1, le=100_000)
    """How many addresses are told apart in one second; each is one record at most, and a reason."""
    callers_singly_per_second: int = Field(20, ge=1, le=100_000)
    """How many of one subject of a tenant are recorded singly in one second."""
    callers_singly_per_second_in_all: int = Field(200, ge=1, le=1_000_000)
    """How many of all tenants and subjects together."""
    callers: int = Field(1000, ge=1, le=100_000)
    """How many subjects are told apart in one second, as `peers`; and as many tenants beside them."""


class Refused(NamedTuple):
    """Who was refused: a stranger by network address, a caller by tenant and subject."""

    peer: str = ""
    tenant: str = ""
    subject: str = ""

    def rest(self) -> Refused:
        """Under which name it is counted where there are too many to tell apart."""
        return Refused(tenant=self.tenant) if self.tenant else Refused(peer=OTHERS)


_REST: Final = Refused(peer=OTHERS)


@dataclass(slots=True)
class RefusalSum:
    """Refusals of one caller for one reason that have no record of their own. Times are microseconds, Unix epoch."""

    who: Refused
    reason: str
    count: int
    first: int
    last: int


class RefusalAggregator:
    """Decides which refusals are recorded singly and sums up the others. Memory and records a second are bounded."""

    def __init__(self, config: RefusalAggregatorConfig, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since the Unix epoch."""
        self._strangers = _Budget(config.singly_per_second, config.singly_per_second_in_all, config.peers, clock)
        self._callers = _Budget(
            config.callers_singly_per_second, config.callers_singly_per_second_in_all, config.callers, clock
        )

    @property
    def summed(self) -> int:
        """Refusals without a record of their own, since the start."""
        return self._strangers.summed + self._callers.summed

    def record_singly(self, who: Refused, reason: str) -> bool:
        """Whether this refusal gets a record of its own. If not it has been counted, and `drain` will tell of it.

        `reason` is that of the refusal.
        """
        return (self._callers if who.tenant else self._strangers).record_singly(who, reason)

    def drain(self) -> list[RefusalSum]:
        """The sums so far, each told once. To be asked once a second while `waiting`, and at the end."""
        return [*self._strangers.drain(), *self._callers.drain()]

    @property
    def waiting(self) -> bool:
        """Whether there are sums that `drain` has not told."""
        return self._strangers.waiting or self._callers.waiting


class _Budget:
    """What strangers have, or callers."""

    def __init__(self, singly: int, in_all: int, apart: int, clock: Callable[[], int]) -> None:
        self.summed = 0
        self._most = singly
        self._most_in_all = in_all
        self._apart = apart
        self._clock = clock
        self._second = -1
        self._singly: dict[Refused, int] = {}
        self._in_all = 0
        self._sums: dict[tuple[Refused, str], RefusalSum] = {}

    def record_singly(self, who: Refused, reason: str) -> bool:
        now = self._clock()
        self._turn(now)
        known = self._known(who)
        if self._take(known) and self._in_all < self._most_in_all:
            self._in_all += 1
            return True
        self._count(known, reason, now)
        return False

    def drain(self) -> list[RefusalSum]:
        sums, self._sums = list(self._sums.values()), {}
        return sums

    @property
    def waiting(self) -> bool:
        return bool(self._sums)

    def _turn(self, now: int) -> None:
        """Begins a new second."""
        if now // _SECOND != self._second:
            self._second = now // _SECOND
            self._singly = {}
            self._in_all = 0

    def _known(self, who: Refused) -> Refused:
        """The name that `who` goes by in this second: its own, that of the rest of a tenant, that of all the rest."""
        for name, most in ((who, self._apart), (who.rest(), 2 * self._apart)):
            if name in self._singly or len(self._singly) < most:
                return name
        return _REST

    def _take(self, who: Refused) -> bool:
        taken = self._singly.get(who, 0)
        self._singly[who] = taken + 1
        return taken < self._most

    def _count(self, who: Refused, reason: str, now: int) -> None:
        self.summed += 1
        key = self._key(who, reason)
        found = self._sums.get(key)
        if found is None:
            self._sums[key] = RefusalSum(*key, count=1, first=now, last=now)
        else:
            found.count += 1
            found.last = now

    def _key(self, who: Refused, reason: str) -> tuple[Refused, str]:
        for key, most in (((who, reason), self._apart), ((who.rest(), reason), 2 * self._apart)):
            if key in self._sums or len(self._sums) < most + _MAX_REASONS:
                return key
        return _REST, OTHERS


def unauthenticated(peer: str) -> Refused:
    """Whoever calls from `peer`, gRPC's name of it (`ipv4:192.0.2.1:50000`)."""
    return Refused(peer=network(peer))


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
