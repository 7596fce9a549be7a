"""Tenant and principal are charged together or not at all, and memory follows traffic."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.gcra import SECOND
from gateway.limits import Charge, Limits, LimitsConfig, MemoryStore, RateConfig, Refusal, TenantLimits
from gateway.principal import Principal
from meshgate.errors import LimitExceeded, Unavailable

METHOD = "/meshgate.v1.EmbeddingService/Embed"


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def caller(subject: str = "bob", tenant: str = "acme") -> Principal:
    return Principal(tenant, subject, frozenset(), "0" * 16, 0, "https://issuer.test")


def rate(per_second: float, burst: int) -> RateConfig:
    return RateConfig(requests_per_second=per_second, burst=burst)


def config(tenant: RateConfig, principal: RateConfig, **tenants: TenantLimits) -> LimitsConfig:
    return LimitsConfig(tenant=tenant, principal=principal, tenants=tenants)


async def refused(limits: Limits, principal: Principal) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        await limits.reserve(principal, METHOD)
    return caught.value


async def test_a_principal_has_its_burst_and_then_its_rate(clock: Clock) -> None:
    limits = Limits(config(rate(100, 100), rate(2, 3)), MemoryStore(clock))
    for _ in range(3):
        await limits.reserve(caller(), METHOD)
    error = await refused(limits, caller())
    assert (error.reason, error.subject, error.limit) == ("RATE_LIMITED", "principal:acme bob", "requests_per_second")
    assert error.retry_after == 0.5
    await limits.reserve(caller("alice"), METHOD)


async def test_a_tenant_is_limited_as_a_whole(clock: Clock) -> None:
    limits = Limits(config(rate(1, 4), rate(100, 100)), MemoryStore(clock))
    for subject in "abcd":
        await limits.reserve(caller(subject), METHOD)
    assert (await refused(limits, caller("e"))).subject == "tenant:acme"
    await limits.reserve(caller("e", tenant="globex"), METHOD)


async def test_a_retry_after_what_it_says_succeeds(clock: Clock) -> None:
    limits = Limits(config(rate(0.3, 1), rate(0.7, 1)), MemoryStore(clock))
    await limits.reserve(caller(), METHOD)
    error = await refused(limits, caller())
    clock.now += int(error.retry_after * SECOND)
    await limits.reserve(caller(), METHOD)


async def test_what_one_limit_refuses_is_not_charged_to_the_other(clock: Clock) -> None:
    limits = Limits(config(rate(1, 2), rate(1, 1)), MemoryStore(clock))
    await limits.reserve(caller("greedy"), METHOD)
    for _ in range(10):
        assert (await refused(limits, caller("greedy"))).subject == "principal:acme greedy"
    await limits.reserve(caller("modest"), METHOD)


async def test_a_tenant_can_have_limits_of_its_own(clock: Clock) -> None:
    own = TenantLimits(principal=rate(1, 3))
    limits = Limits(config(rate(100, 100), rate(1, 1), acme=own), MemoryStore(clock))
    for _ in range(3):
        await limits.reserve(caller(), METHOD)
    await refused(limits, caller())
    await limits.reserve(caller(tenant="globex"), METHOD)
    await refused(limits, caller(tenant="globex"))


async def test_no_two_pairs_of_names_share_a_bucket(clock: Clock) -> None:
    limits = Limits(config(rate(100, 100), rate(1, 1)), MemoryStore(clock))
    await limits.reserve(caller("b/c", tenant="a"), METHOD)
    await limits.reserve(caller("c", tenant="a/b"), METHOD)
    await limits.reserve(caller("b c", tenant="a"), METHOD)


async def test_a_flood_of_subjects_is_forgotten_as_it_passes(clock: Clock) -> None:
    store = MemoryStore(clock)
    limits = Limits(config(rate(100_000, 100_000), rate(10, 1)), store)
    largest = 0
    for number in range(20_000):
        clock.now += SECOND // 1000
        await limits.reserve(caller(f"subject-{number}"), METHOD)
        largest = max(largest, len(store))
    assert largest < 300  # a bucket is full again after 100 calls, and is found soon after


async def test_refused_callers_leave_nothing(clock: Clock) -> None:
    store = MemoryStore(clock)
    limits = Limits(config(rate(1, 1), rate(1, 1)), store)
    await limits.reserve(caller(), METHOD)
    for number in range(1000):
        await refused(limits, caller(f"subject-{number}"))
    assert len(store) == 2


async def test_a_full_store_refuses_rather_than_forgets(clock: Clock) -> None:
    limits = Limits(config(rate(1000, 1000), rate(1, 1)), MemoryStore(clock, max_buckets=10))
    with pytest.raises(Unavailable) as caught:
        for number in range(20):
            await limits.reserve(caller(f"subject-{number}"), METHOD)
    assert caught.value.reason == "OVERLOADED"
    await refused(limits, caller("subject-0"))


async def test_a_clock_that_goes_back_gives_nothing_away(clock: Clock) -> None:
    clock.now = 100 * SECOND
    limits = Limits(config(rate(1, 5), rate(1, 5)), MemoryStore(clock))
    admitted = 0
    for _ in range(10):
        for clock.now in (0, 100 * SECOND):
            try:
                await limits.reserve(caller(), METHOD)
            except LimitExceeded:
                continue
            admitted += 1
    assert admitted == 5


async def test_a_refund_comes_back(clock: Clock) -> None:
    store = MemoryStore(clock)
    charge = Charge("tenant:acme", rate(1, 5).limit(), 5)
    assert await store.spend([charge]) is None
    assert await store.spend([charge]) == Refusal(charge, 5 * SECOND)
    await store.refund([charge])
    assert await store.spend([charge]) is None


@given(steps=st.lists(st.tuples(st.integers(0, 3 * SECOND), st.sampled_from("abc")), max_size=60))
async def test_never_more_than_the_tenant_may(steps: Sequence[tuple[int, str]]) -> None:
    clock = Clock()
    limits = Limits(config(rate(2, 4), rate(1, 3)), MemoryStore(clock))
    admitted = 0
    for wait, subject in steps:
        clock.now += wait
        try:
            await limits.reserve(caller(subject), METHOD)
        except LimitExceeded:
            continue
        admitted += 1
        assert admitted <= 2 * clock.now / SECOND + 4
