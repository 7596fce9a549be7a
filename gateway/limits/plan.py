"""The plan of a call: the buckets and concurrency limits of its principal, its tenant and all callers, cached per
caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from gateway.limits import gcra
from gateway.limits.config import DEFAULT, Allowance, Levels, LimitsConfig, TenantLimits

UNLIMITED: Final = 2**53
"""More than any limit; exact in Lua as well."""

TOTAL: Final = "total:"
"""The subject of limits that all callers share."""

_CACHED_PLANS: Final = 20_000
_NOBODY: Final = TenantLimits.model_validate({})
_NO_MODEL: Final = Levels.model_validate({})


class Bucket(NamedTuple):
    """A rate of requests or tokens that belongs to an owner."""

    key: str
    limit: gcra.Limit
    subject: str
    """The owner, as a refusal names it."""
    name: str
    """The limit, as a refusal names it."""


class ConcurrencyLimit(NamedTuple):
    """The number of calls that an owner may have in flight."""

    key: str
    maximum: int
    subject: str
    name: str


class Plan:
    """All limits of a kind of call: one unit of each of `requests`, the tokens from each of `tokens`, and a slot of
    each of `concurrency`.

    `concurrency` is never empty, because DEFAULT has such limits. A shared store also recognises a call by its lease in
    the first of them.
    """

    __slots__ = ("_part", "concurrency", "growth", "held_lease", "max_tokens", "own", "requests", "tokens")

    def __init__(
        self,
        requests: tuple[Bucket, ...],
        tokens: tuple[Bucket, ...],
        concurrency: tuple[ConcurrencyLimit, ...],
        *,
        grows: bool = True,
    ) -> None:
        self.requests = requests
        self.tokens = tokens
        self.concurrency = concurrency
        self.max_tokens = min((bucket.limit.burst for bucket in tokens), default=UNLIMITED)
        """No reservation can be larger."""
        self.own: Plan = self._owned()
        """The same without the buckets that all callers share: the caller may know only the rest of these."""
        self.growth = Plan((), tokens, (), grows=False) if grows else self
        """The plan for later messages of a stream."""
        self.held_lease = ""
        """The lease that the call already holds in a shared store. Its slots do not count, and are taken over."""
        self._part: tuple[int, Plan] | None = None

    def after(self, lease: str) -> Plan:
        """The same for the call that holds `lease`."""
        made = copy(self)
        made.held_lease = lease
        return made

    def _owned(self) -> Plan:
        requests = tuple(bucket for bucket in self.requests if bucket.subject != TOTAL)
        tokens = tuple(bucket for bucket in self.tokens if bucket.subject != TOTAL)
        if (requests, tokens) == (self.requests, self.tokens):
            return self
        return Plan(requests, tokens, (), grows=False)

    def part(self, count: int) -> Plan:
        """The same with each limit divided by `count`."""
        if self._part is None or self._part[0] != count:
            self._part = (count, self._divided(count))
        return self._part[1]

    def _divided(self, count: int) -> Plan:
        return Plan(
            tuple(bucket._replace(limit=bucket.limit.part(count)) for bucket in self.requests),
            tuple(bucket._replace(limit=bucket.limit.part(count)) for bucket in self.tokens),
            tuple(slots._replace(maximum=max(1, slots.maximum // count)) for slots in self.concurrency),
        )


class Owner(NamedTuple):
    """An owner of limits, and its allowances: those for the model come before the general ones."""

    subject: str
    tenant: str
    model: str
    of_model: tuple[Allowance, ...]
    general: tuple[Allowance, ...]

    def key(self, kind: str, model: str) -> str:
        """The key of a bucket. A tenant has no space, nor has a quoted model, so that no two owners have one key."""
        level, _, rest = self.subject.partition(":")
        return f"{kind}:{level}:{quote(model, safe='')} {rest}" if model else f"{kind}:{level}: {rest}"

    def find(self, field: str) -> tuple[Allowance, str] | None:
        """The allowance that has `field`, and the model it is for, if it is for one."""
        for allowances, model in ((self.of_model, self.model), (self.general, "")):
            for allowance in allowances:
                if getattr(allowance, field) is not None:
                    return allowance, model
        return None


class Plans:
    """Makes plans, and caches them."""

    def __init__(self, config: LimitsConfig) -> None:
        self._config = config
        self._named = frozenset(config.models).union(*(tenant.models for tenant in config.tenants.values()))
        self.models = self._named
        """Models with limits of their own."""
        self._aliases: dict[str, tuple[str, ...]] = {}
        self._plan = lru_cache(maxsize=_CACHED_PLANS)(self._make)

    def set_aliases(self, aliases: Mapping[str, tuple[str, ...]]) -> bool:
        """Sets the aliases of models, by the models' own names. A limit for an alias is a limit of its model. True
        where plans change.
        """
        said = {own: tuple(name for name in names if name in self._named) for own, names in aliases.items()}
        found = {own: names for own, names in said.items() if names}
        if found == self._aliases:
            return False
        self._aliases = found
        self.models = self._named | set(found)
        self._plan.cache_clear()
        return True

    def of(self, tenant: str, subject: str, model: str, *, streams: bool) -> Plan:
        """The plan for calls of `model`, its own name. `streams` says whether either side streams."""
        return self._plan(tenant, subject, model if model in self.models else "", streams)

    def _make(self, tenant: str, subject: str, model: str, streams: bool) -> Plan:
        owners = self.owners(tenant, subject, model)
        slots = [concurrency_limit(owner, "concurrent_calls") for owner in owners]
        if streams:
            slots += [concurrency_limit(owner, "concurrent_streams") for owner in owners]
        return Plan(
            tuple(bucket for owner in owners if (bucket := _requests(owner)) is not None),
            tuple(bucket for owner in owners if (bucket := _tokens(owner)) is not None),
            tuple(each for each in slots if each is not None),
        )

    def owners(self, tenant: str, subject: str, model: str) -> tuple[Owner, ...]:
        """The principal, its tenant and all callers."""
        config, own = self._config, self._config.tenants.get(tenant, _NOBODY)
        names = (model, *self._aliases.get(model, ())) if model else ()
        special = (_of(own.models, names), _of(config.models, names))
        return (
            Owner(
                f"principal:{tenant} {subject}",
                tenant,
                model,
                tuple(each.principal for each in special),
                (own.principal, config.principal, DEFAULT.principal),
            ),
            Owner(
                f"tenant:{tenant}",
                tenant,
                model,
                tuple(each.tenant for each in special),
                (own.tenant, config.tenant, DEFAULT.tenant),
            ),
            Owner(TOTAL, "", "", (), (config.total,)),
        )


def _of(models: Mapping[str, Levels], names: tuple[str, ...]) -> Levels:
    """The limits of a model under the first of its names that has any."""
    return next((models[name] for name in names if name in models), _NO_MODEL)


def _requests(owner: Owner) -> Bucket | None:
    found = owner.find("requests_per_second")
    limit = found[0].requests() if found else None
    return _bucket(owner, "requests", "requests_per_second", limit, found[1]) if found and limit else None


def _tokens(owner: Owner) -> Bucket | None:
    found = owner.find("tokens_per_minute")
    limit = found[0].tokens() if found else None
    return _bucket(owner, "tokens", "tokens_per_minute", limit, found[1]) if found and limit else None


def _bucket(owner: Owner, kind: str, name: str, limit: gcra.Limit, model: str) -> Bucket:
    return Bucket(owner.key(kind, model), limit, owner.subject, _named(name, model))


def concurrency_limit(owner: Owner, name: str) -> ConcurrencyLimit | None:
    """The limit `concurrent_calls` or `concurrent_streams` of an owner, if it has one."""
    if (found := owner.find(name)) is None:
        return None
    allowance, model = found
    kind = name.removeprefix("concurrent_")
    return ConcurrencyLimit(owner.key(kind, model), getattr(allowance, name), owner.subject, _named(name, model))


def _named(name: str, model: str) -> str:
    return f"{name} of {model}" if model else name
