"""The remaining quota in the trailers reveals nothing of other callers, in one process and with a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.limits import LimitsConfig, RateLimiter
from gateway.limits.memory_store import MemoryStore
from meshgate.rpc import metadata
from tests.support.fixtures.limits import MODELS, Clock, call_of, caller, generate
from tests.support.network.valkey import Valkey

TOTAL = {"requests_per_second": 1, "burst": 30, "tokens_per_minute": 60, "token_burst": 3000}
OWN = {"requests_per_second": 1, "burst": 90, "tokens_per_minute": 60, "token_burst": 9000}
CASES: dict[str, dict[str, Any]] = {
    "principal": {"principal": OWN},
    "tenant": {"tenant": OWN},
    "principal and tenant": {"principal": OWN, "tenant": OWN},
    "model": {"models": {"small": {"principal": OWN, "tenant": OWN}}},
}


@asynccontextmanager
async def limits(kind: str, home: Path, config: Mapping[str, Any]) -> AsyncIterator[RateLimiter]:
    if kind == "memory":
        clock = Clock()
        yield RateLimiter(LimitsConfig.model_validate(config), MemoryStore(clock), lambda: MODELS, clock, clock.sleep)
        return
    valkey = Valkey(home)
    valkey.start()
    try:
        async with valkey.limits(config) as made:
            yield made
    finally:
        valkey.stop()


async def told(made: RateLimiter, tenant: str, used: int = 40) -> dict[str, int]:
    """What a call's trailers say is left."""
    asked = generate(max_output_tokens=20)
    call = call_of(asked)
    reservation = await made.reserve(call, caller(tenant=tenant), asked)
    call.output_tokens = used
    made.settle(reservation, call)
    return {name: int(value) for name, value in call.trailers}


def left(*, requests: int, tokens: int) -> dict[str, Any]:
    """Both come back by one a second meanwhile."""
    return {
        metadata.REMAINING_REQUESTS: pytest.approx(requests, abs=5),
        metadata.REMAINING_TOKENS: pytest.approx(tokens, abs=5),
    }


@pytest.mark.parametrize("kind", ["memory", "store"])
@pytest.mark.parametrize("case", CASES)
async def test_others_load_is_not_told(tmp_path: Path, case: str, kind: str) -> None:
    others = {"requests_per_second": 1000, "burst": 1000, "tokens_per_minute": 10**6}
    config = {**CASES[case], "total": TOTAL, "tenants": {"globex": {"principal": others, "tenant": others}}}
    async with limits(kind, tmp_path, config) as made:
        assert await told(made, "acme") == left(requests=89, tokens=8960)
        for _ in range(20):
            await told(made, "globex", used=100)
        assert await told(made, "acme") == left(requests=88, tokens=8920)


@pytest.mark.parametrize("kind", ["memory", "store"])
async def test_a_limit_of_everybody_alone_is_told_to_nobody(tmp_path: Path, kind: str) -> None:
    async with limits(kind, tmp_path, {"total": TOTAL}) as made:
        assert set(await told(made, "acme")) == {metadata.REMAINING_REQUESTS}  # of its own default
