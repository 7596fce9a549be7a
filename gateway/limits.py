"""How much a caller may ask: requests a second, of a tenant and of each principal.

`Limits` says what is charged to whom, a `Store` keeps the buckets. `MemoryStore` is exact for one worker; a store
shared by many implements the same protocol, which is why it is async.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from pydantic import Field

from gateway import gcra
from gateway.principal import Principal
from meshgate import errors
from meshgate.runtime.config import Strict

_MILLISECOND: Final = 1_000_000
_MAX_BUCKETS: Final = 1_000_000
_CACHED_CALLERS: Final = 10_000
_SWEEP: Final = 2
"""Buckets looked at for each spend. A spend makes at most two, so that full ones go at least as fast as new come."""


class RateConfig(Strict):
    """A rate and how much of it may come at once."""

    requests_per_second: float = Field(gt=0, le=1_000_000)
    burst: int = Field(ge=1, le=1_000_000)

    def limit(self) -> gcra.Limit:
        return gcra.Limit.per_second(self.requests_per_second, self.burst)


class TenantLimits(Strict):
    """What differs for one tenant."""

    tenant: RateConfig | None = None
    principal: RateConfig | None = None


class LimitsConfig(Strict):
    """The limits of a tenant as a whole and of each of its principals."""

    tenant: RateConfig = RateConfig(requests_per_second=200, burst=400)
    principal: RateConfig = RateConfig(requests_per_second=100, burst=200)
    tenants: Mapping[str, TenantLimits] = Field(default_factory=dict)
    """Tenant to what differs for it."""


class Charge(NamedTuple):
    """`cost` units from the bucket called `key`."""

    key: str
    limit: gcra.Limit
    cost: int = 1


class Refusal(NamedTuple):
    """The charge that can't be met for the longest, and for how many nanoseconds."""

    charge: Charge
    retry_after: int


class Store(Protocol):
    """Keeps buckets."""

    async def spend(self, charges: Sequence[Charge]) -> Refusal | None:
        """Spends all the charges, or none of them and says why. Raises Unavailable when the store is down."""

    async def refund(self, charges: Sequence[Charge]) -> None:
        """Gives back what was spent. Raises Unavailable when the store is down."""


class MemoryStore:
    """Buckets in this process. A full bucket is forgotten, so memory follows traffic and not history."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, max_buckets: int = _MAX_BUCKETS) -> None:
        """`clock` is in nanoseconds; a reading that goes back counts as the latest one."""
        self._clock = clock
        self._latest = clock()
        self._max_buckets = max_buckets
        self._tats: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tats)

    async def spend(self, charges: Sequence[Charge]) -> Refusal | None:
        now = self._now()
        self._sweep(now)
        refusal = None
        spent = {}
        for charge in charges:
            decision = gcra.spend(self._tats.get(charge.key, now), now, charge.limit, charge.cost)
            spent[charge.key] = decision.tat
            if not decision.allowed and (refusal is None or decision.retry_after > refusal.retry_after):
                refusal = Refusal(charge, decision.retry_after)
        if refusal is None:
            self._keep(spent)
        return refusal

    async def refund(self, charges: Sequence[Charge]) -> None:
        now = self._now()
        for key, limit, cost in charges:
            if key in self._tats:
                self._tats[key] = gcra.refund(self._tats[key], now, limit, cost)

    def _keep(self, spent: Mapping[str, int]) -> None:
        if len(self._tats) >= self._max_buckets:
            raise errors.Unavailable("too many callers at once", reason="OVERLOADED", retry_after=1.0)
        self._tats.update(spent)

    def _now(self) -> int:
        self._latest = max(self._latest, self._clock())
        return self._latest

    def _sweep(self, now: int) -> None:
        """Looks at the buckets longest unseen: forgets the full ones and sends the others to the back."""
        for _ in range(min(_SWEEP, len(self._tats))):
            key, tat = self._tats.popitem(last=False)
            if tat > now:
                self._tats[key] = tat


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call was charged."""

    charges: tuple[Charge, ...]


class Limits:
    """The stage: charges a call before it does anything that costs."""

    def __init__(self, config: LimitsConfig, store: Store | None = None) -> None:
        """Without a store the buckets are in this process."""
        self._store: Store = MemoryStore() if store is None else store
        self._default = (config.tenant.limit(), config.principal.limit())
        self._tenants = {
            name: ((own.tenant or config.tenant).limit(), (own.principal or config.principal).limit())
            for name, own in config.tenants.items()
        }
        self._charges = lru_cache(maxsize=_CACHED_CALLERS)(self._charge)

    async def reserve(self, principal: Principal, method: str) -> Reservation:
        """Charges the tenant and the principal with one request, both or neither.

        Raises LimitExceeded (RATE_LIMITED): the same call would be allowed after its `retry_after`, unless others of
        the same tenant come first. Raises Unavailable when the limits can't be known.
        """
        charges = self._charges(principal.tenant, principal.subject)
        refusal = await self._store.spend(charges)
        if refusal is not None:
            raise _exceeded(refusal)
        return Reservation(charges)

    def _charge(self, tenant: str, subject: str) -> tuple[Charge, ...]:
        of_tenant, of_principal = self._tenants.get(tenant, self._default)
        return (
            Charge(f"tenant:{tenant}", of_tenant),
            # A tenant has no space, so that no two pairs make one key.
            Charge(f"principal:{tenant} {subject}", of_principal),
        )

    def settle(self, reservation: Reservation, tokens: int) -> None:
        """Ends a reservation whose call took `tokens`. A request, once made, is not given back."""


def _exceeded(refusal: Refusal) -> errors.LimitExceeded:
    return errors.LimitExceeded(
        "too many requests",
        retry_after=math.ceil(refusal.retry_after / _MILLISECOND) / 1000,
        subject=refusal.charge.key,
        limit="requests_per_second",
    )
