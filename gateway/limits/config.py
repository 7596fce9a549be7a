"""The limits section. Limits follow who was authenticated, never what a caller says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from gateway.authentication.names import ModelName, TenantName
from gateway.limits import gcra
from meshgate.runtime.config import Strict

_LONGEST_FILL_SECONDS: Final = 7 * 86_400
"""How long an empty bucket may take to be full. It bounds waits, the store's memory, and its arithmetic: Lua's numbers
are doubles, which hold a week of nanoseconds exactly, with three bits to spare."""


class Allowance(Strict):
    """What one caller, or several together, may have. What is left out is as the more general section says."""

    requests_per_second: float | None = Field(None, gt=0, le=1_000_000)
    """The rate at which requests come back. It needs burst."""
    burst: int | None = Field(None, ge=1, le=1_000_000)
    """How many requests may come at once. It belongs to requests_per_second."""
    tokens_per_minute: int | None = Field(None, ge=1, le=1_000_000_000)
    """Input and output tokens."""
    token_burst: int | None = Field(None, ge=1, le=1_000_000_000)
    """How many tokens may be taken at once. A minute's worth where it is left out."""
    concurrent_calls: int | None = Field(None, ge=1, le=1_000_000)
    """Calls in hand, streams included."""
    concurrent_streams: int | None = Field(None, ge=1, le=1_000_000)
    """Calls in hand whose requests or replies stream."""

    def requests(self) -> gcra.Limit | None:
        """The rate of requests, if it is said."""
        if self.requests_per_second is None or self.burst is None:
            return None
        return gcra.Limit.per_second(self.requests_per_second, self.burst)

    def tokens(self) -> gcra.Limit | None:
        """The rate of tokens, if it is said."""
        if self.tokens_per_minute is None:
            return None
        return gcra.Limit.per_minute(self.tokens_per_minute, self.token_burst or self.tokens_per_minute)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.requests_per_second is None) != (self.burst is None):
            raise ValueError("requests_per_second and burst: one needs the other")
        if self.tokens_per_minute is None and self.token_burst is not None:
            raise ValueError("token_burst: needs tokens_per_minute")
        return self

    @model_validator(mode="after")
    def _fills(self) -> Self:
        for name, limit in (("burst", self.requests()), ("token_burst", self.tokens())):
            if limit is not None and limit.capacity > _LONGEST_FILL_SECONDS * gcra.SECOND:
                raise ValueError(f"{name}: takes longer than a week to come back at this rate")
        return self


class Levels(Strict):
    """A tenant as a whole, and each of its principals."""

    tenant: Allowance = Allowance.model_validate({})
    principal: Allowance = Allowance.model_validate({})


class TenantLimits(Levels):
    """What differs for one tenant."""

    models: Mapping[ModelName, Levels] = Field(default_factory=dict)
    """Model to what this tenant has for it."""


DEFAULT: Final = Levels.model_validate(
    {
        "tenant": {"requests_per_second": 200, "burst": 400, "concurrent_calls": 1000, "concurrent_streams": 500},
        "principal": {"requests_per_second": 100, "burst": 200, "concurrent_calls": 500, "concurrent_streams": 200},
    }
)
"""For what the configuration leaves out, so that nobody's calls are without bound. Tokens have no default: how many a
model makes in a minute depends on where it runs."""


class LimitsConfig(Levels):
    """The limits section: of everybody together, of a tenant as a whole, and of each of its principals."""

    total: Allowance = Allowance.model_validate({})
    """All callers together. Default: no such limit."""
    tenants: Mapping[TenantName, TenantLimits] = Field(default_factory=dict)
    """Tenant to what differs for it."""
    models: Mapping[ModelName, Levels] = Field(default_factory=dict)
    """Model, or an alias of one, to what its calls have instead: a limit said here has buckets of its own, and its
    calls leave the general one alone."""
    template_tokens: int = Field(128, ge=0, le=1_000_000)
    """Reserved for what a chat template or a prompt name adds to an input."""
    useful_output_tokens: int = Field(16, ge=1, le=1_000_000)
    """The fewest output tokens of a candidate that a call goes on for, where less than it asks for is left."""
    stream_wait_seconds: float = Field(30.0, ge=0, le=3600)
    """How long a message of a bulk stream waits for tokens before the stream is refused."""
    on_outage: Literal["deny", "local"] = "deny"
    """While the store is down: refuse, or let each process give out its share."""
    replicas: int = Field(1, ge=1, le=10_000)
    """Gateways that share the store, of `workers` processes each. A share is the limit divided by the processes."""
    lease_seconds: float = Field(30.0, ge=1, le=3600)
    """How long a killed process's places stay taken in the store."""
