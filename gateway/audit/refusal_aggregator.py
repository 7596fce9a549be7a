"""Refusals, recorded at a bounded rate, so that a flood of them does not fill the disk of the audit log.

Every refusal is accounted for, but not every one has a record of its own. A refusal costs the caller one packet. A
record costs the gateway some 700 bytes for ever and a slot in a group commit on which others wait. So the first few
refusals of a caller in each second have a record each, as any call has. Further ones are counted by caller and reason,
and each second leaves one record with the count and the times of the first and the last. An investigator loses nothing
useful: caller, reason, number and times remain. The request ids, methods and ports of the repeats do not.

A caller is the tenant and subject of a valid token, and otherwise the network address. The two have separate budgets,
so that unauthenticated callers can't use up the budget of callers. Only refused calls are aggregated: limits bound the
admitted ones, and each has its own records. A crash loses at most the counts of its last second.

There are many addresses (an IPv6 host has 2**64), so an IPv6 address counts as its /64. There are many subjects where
an issuer makes them up. So at most `peers` addresses and `callers` subjects have their own count in one second. The
rest share one: addresses under the name OTHERS, subjects under their tenant without a subject.
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
    """The [flood] section: when refusals share a record."""

    singly_per_second: int = Field(20, ge=1, le=100_000)
    """How many refusals of one unauthenticated address have a record of their own in one second."""
    singly_per_second_in_all: int = Field(200, ge=1, le=1_000_000)
    """How many refusals of all addresses together have one: many addresses are no more expensive than one."""
    peers: int = Field(1000, ge=1, le=100_000)
    """How many addresses have their own count in one second. Each leaves at most one record for each reason."""
    callers_singly_per_second: int = Field(20, ge=1, le=100_000)
    """How many refusals of one subject of a tenant have a record of their own in one second."""
    callers_singly_per_second_in_all: int = Field(200, ge=1, le=1_000_000)
    """How many refusals of all tenants and subjects together have one."""
    callers: int = Field(1000, ge=1, le=100_000)
    """How many subjects have their own count in one second, and as many tenants beside them; compare `peers`."""


class Refused(NamedTuple):
    """The caller of a refused call: an unauthenticated one by network address, another one by tenant and subject."""

    peer: str = ""
    tenant: str = ""
    subject: str = ""

    def rest(self) -> Refused:
        """The name under which it is counted where too many have a count of their own."""
        return Refused(tenant=self.tenant) if self.tenant else Refused(peer=OTHERS)


_REST: Final = Refused(peer=OTHERS)


@dataclass(slots=True)
class RefusalSum:
    """Refusals of one caller for one reason that have no record of their own. Times are microseconds, Unix epoch."""

    caller: Refused
    reason: str
    count: int
    first: int
    last: int


class RefusalAggregator:
    """Decides which refusals have a record of their own and counts the others. Memory and records per second are
    bounded.
    """

    def __init__(self, config: RefusalAggregatorConfig, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since the Unix epoch."""
        self._unauthenticated = _Budget(config.singly_per_second, config.singly_per_second_in_all, config.peers, clock)
        self._callers = _Budget(
            config.callers_singly_per_second, config.callers_singly_per_second_in_all, config.callers, clock
        )

    @property
    def summed(self) -> int:
        """Refusals without a record of their own, since the start."""
        return self._unauthenticated.summed + self._callers.summed

    def record_singly(self, caller: Refused, reason: str) -> bool:
        """Whether this refusal has a record of its own. If not, it has been counted, and `drain` returns the count."""
        return (self._callers if caller.tenant else self._unauthenticated).record_singly(caller, reason)

    def drain(self) -> list[RefusalSum]:
        """The counts so far, each once. Call it once a second while `waiting`, and at the end."""
        return [*self._unauthenticated.drain(), *self._callers.drain()]

    @property
    def waiting(self) -> bool:
        """Whether there are counts that `drain` has not returned."""
        return self._unauthenticated.waiting or self._callers.waiting


class _Budget:
    """The budget of one kind of callers: unauthenticated ones, or those with a token."""

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

    def record_singly(self, caller: Refused, reason: str) -> bool:
        now = self._clock()
        self._turn(now)
        known = self._known(caller)
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

    def _known(self, caller: Refused) -> Refused:
        """The name under which the caller is counted in this second: its own, its tenant's rest, or the rest of all."""
        for name, most in ((caller, self._apart), (caller.rest(), 2 * self._apart)):
            if name in self._singly or len(self._singly) < most:
                return name
        return _REST

    def _take(self, caller: Refused) -> bool:
        taken = self._singly.get(caller, 0)
        self._singly[caller] = taken + 1
        return taken < self._most

    def _count(self, caller: Refused, reason: str, now: int) -> None:
        self.summed += 1
        key = self._key(caller, reason)
        found = self._sums.get(key)
        if found is None:
            self._sums[key] = RefusalSum(*key, count=1, first=now, last=now)
        else:
            found.count += 1
            found.last = now

    def _key(self, caller: Refused, reason: str) -> tuple[Refused, str]:
        for key, most in (((caller, reason), self._apart), ((caller.rest(), reason), 2 * self._apart)):
            if key in self._sums or len(self._sums) < most + _MAX_REASONS:
                return key
        return _REST, OTHERS


def unauthenticated(peer: str) -> Refused:
    """The caller behind `peer`, gRPC's name of an address (`ipv4:192.0.2.1:50000`)."""
    return Refused(peer=network(peer))


def network(peer: str) -> str:
    """The part of a peer's name that the caller can't choose freely: its IPv4 address, its IPv6 /64, or the kind of
    address.
    """
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
