"""The [limits] section. Limits belong to the authenticated caller, whatever a caller says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from gateway.authentication.names import ModelName, TenantName
from gateway.limits import gcra
from meshgate.runtime.config import Strict

_LONGEST_FILL_SECONDS: Final = 7 * 86_400
"""The longest time that an empty bucket may take to fill. It bounds waits, the store's memory and its arithmetic: Lua's
numbers are doubles, which hold a week of nanoseconds exactly, with three bits to spare.
"""


class Allowance(Strict):
    """The limits of one caller, or of several together. For a key that is left out the more general section counts."""

    requests_per_second: float | None = Field(None, gt=0, le=1_000_000)
    """The rate at which requests come back. It requires burst."""
    burst: int | None = Field(None, ge=1, le=1_000_000)
    """How many requests may come at once. It requires requests_per_second."""
    tokens_per_minute: int | None = Field(None, ge=1, le=1_000_000_000)
    """The rate at which input and output tokens come back."""
    token_burst: int | None = Field(None, ge=1, le=1_000_000_000)
    """How many tokens may be taken at once. Default: the tokens of one minute."""
    concurrent_calls: int | None = Field(None, ge=1, le=1_000_000)
    """Calls in flight, streams included."""
    concurrent_streams: int | None = Field(None, ge=1, le=1_000_000)
    """Calls in flight whose requests or replies stream."""

    def requests(self) -> gcra.Limit | None:
        """The limit of requests, if there is one."""
        if self.requests_per_second is None or self.burst is None:
            return None
        return gcra.Limit.per_second(self.requests_per_second, self.burst)

    def tokens(self) -> gcra.Limit | None:
        """The limit of tokens, if there is one."""
        if self.tokens_per_minute is None:
            return None
        return gcra.Limit.per_minute(self.tokens_per_minute, self.token_burst or self.tokens_per_minute)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.requests_per_second is None) != (self.burst is None):
            raise ValueError("requests_per_second and burst: one requires the other")
        if self.tokens_per_minute is None and self.token_burst is not None:
            raise ValueError("token_burst: requires tokens_per_minute")
        return self

    @model_validator(mode="after")
    def _fills(self) -> Self:
        for name, limit in (("burst", self.requests()), ("token_burst", self.tokens())):
            if limit is not None and limit.capacity > _LONGEST_FILL_SECONDS * gcra.SECOND:
                raise ValueError(f"{name}: takes longer than a week to come back at this rate")
        return self


class Levels(Strict):
    """The limits of a tenant as a whole, and of each of its principals."""

    tenant: Allowance = Allowance.model_validate({})
    principal: Allowance = Allowance.model_validate({})


class TenantLimits(Levels):
    """The limits of one tenant, where they differ from the general ones."""

    models: Mapping[ModelName, Levels] = Field(default_factory=dict)
    """Model to the limits of this tenant for it."""


DEFAULT: Final = Levels.model_validate(
    {
        "tenant": {"requests_per_second": 200, "burst": 400, "concurrent_calls": 1000, "concurrent_streams": 500},
        "principal": {"requests_per_second": 100, "burst": 200, "concurrent_calls": 500, "concurrent_streams": 200},
    }
)
"""The limits where the configuration has none, so that every caller is bounded. Tokens have no default: how many a
model makes in a minute depends on its machine.
"""


class LimitsConfig(Levels):
    """The [limits] section: the limits of all callers together, of a tenant as a whole, and of each of its
    principals.
    """

    total: Allowance = Allowance.model_validate({})
    """The limits of all callers together. Default: none."""
    tenants: Mapping[TenantName, TenantLimits] = Field(default_factory=dict)
    """Tenant to its own limits, where they differ."""
    models: Mapping[ModelName, Levels] = Field(default_factory=dict)
    """Model, or an alias of one, to the limits of its calls: a limit here has buckets of its own, and its calls do not
    count against the general one.
    """
    template_tokens: int = Field(128, ge=0, le=1_000_000)
    """Tokens reserved for the text that a chat template or a prompt name adds to an input."""
    useful_output_tokens: int = Field(16, ge=1, le=1_000_000)
    """The fewest output tokens of a candidate for which a call goes on, where fewer than it asks for are left."""
    stream_wait_seconds: float = Field(30.0, ge=0, le=3600)
    """How long a message of a bulk stream waits for tokens before the stream is refused."""
    on_outage: Literal["deny", "local"] = "deny"
    """While the store is down: refuse calls (`deny`), or let each process admit its share (`local`)."""
    replicas: int = Field(1, ge=1, le=10_000)
    """Gateways that share the store, of `workers` processes each. A share is the limit divided by the number of
    processes.
    """
    lease_seconds: float = Field(30.0, ge=1, le=3600)
    """How long the concurrency slots of a killed process stay taken in the store."""
