"""All callers, tenant and principal are charged together or not at all, and memory follows traffic."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.limits.config import DEFAULT, Levels, LimitsConfig
from gateway.limits.gcra import SECOND
from gateway.limits.memory_store import MemoryStore
from meshgate.errors import LimitExceeded, Unavailable
from meshgate.state import default_configs
from tests.support.fixtures.limits import Clock, Stage, caller, generate


def rate(per_second: float, burst: int) -> dict[str, Any]:
    return {"requests_per_second": per_second, "burst": burst}


def config(tenant: dict[str, Any], principal: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tenant": tenant, "principal": principal, **more}


async def test_a_principal_has_its_burst_and_then_its_rate() -> None:
    stage = Stage(config(rate(100, 100), rate(2, 3)))
    for _ in range(3):
        await stage.once()
    error = await stage.refused()
    assert (error.reason, error.subject, error.limit) == ("RATE_LIMITED", "principal:acme bob", "requests_per_second")
    assert error.retry_after == 0.5
    await stage.once(caller("alice"))


async def test_a_tenant_is_limited_as_a_whole() -> None:
    stage = Stage(config(rate(1, 4), rate(100, 100)))
    for subject in "abcd":
        await stage.once(caller(subject))
    assert (await stage.refused(caller("e"))).subject == "tenant:acme"
    await stage.once(caller("e", tenant="globex"))


async def test_all_together_have_a_ceiling() -> None:
    stage = Stage({"total": rate(1, 3)})
    for tenant in ("acme", "globex", "initech"):
        await stage.once(caller(tenant=tenant))
    assert (await stage.refused(caller(tenant="umbrella"))).subject == "total:"


async def test_what_is_left_out_has_the_default() -> None:
    stage = Stage({"principal": {"tokens_per_minute": 1_000_000}})
    for _ in range(200):
        await stage.once(used=1)
    assert (await stage.refused()).limit == "requests_per_second"


async def test_a_retry_after_what_it_says_succeeds() -> None:
    stage = Stage(config(rate(0.3, 1), rate(0.7, 1)))
    await stage.once()
    error = await stage.refused()
    stage.clock.now += int((error.retry_after or 0) * SECOND)
    await stage.once()


async def test_what_one_limit_refuses_is_not_charged_to_the_other() -> None:
    stage = Stage(config(rate(1, 2), rate(1, 1)))
    await stage.once(caller("greedy"))
    for _ in range(10):
        assert (await stage.refused(caller("greedy"))).subject == "principal:acme greedy"
    await stage.once(caller("modest"))


async def test_a_tenant_can_have_limits_of_its_own() -> None:
    own = {"acme": {"principal": rate(1, 3)}}
    stage = Stage(config(rate(100, 100), rate(1, 1), tenants=own))
    for _ in range(3):
        await stage.once()
    await stage.refused()
    await stage.once(caller(tenant="globex"))
    await stage.refused(caller(tenant="globex"))


async def test_a_model_can_have_limits_of_its_own_and_leaves_the_others_alone() -> None:
    stage = Stage(config(rate(100, 100), rate(1, 2), models={"big": {"principal": rate(1, 1)}}))
    await stage.once(model="big")
    error = await stage.refused(model="big")
    assert (error.subject, error.limit) == ("principal:acme bob", "requests_per_second of big")
    for _ in range(2):
        await stage.once(model="small")
    await stage.refused(model="small")


async def test_a_tenant_can_have_more_of_a_model() -> None:
    models = {"big": {"principal": rate(1, 1)}}
    own = {"acme": {"models": {"big": {"principal": rate(1, 2)}}}}
    stage = Stage(config(rate(100, 100), rate(9, 9), models=models, tenants=own))
    for _ in range(2):
        await stage.once(model="big")
    await stage.refused(model="big")
    await stage.once(caller(tenant="globex"), model="big")
    await stage.refused(caller(tenant="globex"), model="big")


async def test_no_two_callers_share_a_bucket() -> None:
    models = {"a b": {"principal": rate(1, 1)}, "a": {"principal": rate(1, 1)}}
    stage = Stage(config(rate(100, 100), rate(1, 1), models=models))
    await stage.once(caller("b/c", tenant="a"))
    await stage.once(caller("c", tenant="a/b"))
    await stage.once(caller("b c", tenant="a"))
    await stage.once(caller("b x", tenant="t"), model="a")
    await stage.once(caller("x", tenant="t"), model="a b")
    await stage.once(caller("a t b x", tenant="t"))


async def test_calls_at_once_have_places() -> None:
    stage = Stage({"principal": {"concurrent_calls": 2}, "tenant": {"concurrent_calls": 3}})
    first, second = await stage.begin(), await stage.begin()
    error = await stage.refused()
    assert (error.reason, error.limit) == ("CONCURRENCY_LIMITED", "concurrent_calls")
    assert error.retry_after is None
    other = await stage.begin(caller("alice"))
    assert (await stage.refused(caller("carol"))).subject == "tenant:acme"
    stage.limits.settle(*first)
    stage.limits.abandon(*second, TimeoutError())
    await stage.begin()
    stage.limits.settle(*other)
    await stage.begin()


async def test_a_place_that_is_wanting_is_told_first_because_no_time_is_true_for_it() -> None:
    stage = Stage(config(rate(1, 1), {**rate(0.1, 1), "concurrent_calls": 1}))
    held = await stage.begin()
    error = await stage.refused()
    assert (error.reason, error.retry_after) == ("CONCURRENCY_LIMITED", None)
    stage.limits.settle(*held)
    error = await stage.refused()
    assert (error.reason, error.retry_after) == ("RATE_LIMITED", 10.0)


async def test_places_are_bounded_where_nothing_is_said_of_them() -> None:
    stage = Stage(config(rate(10_000, 10_000), rate(10_000, 10_000)))
    held = [await stage.begin() for _ in range(500)]
    error = await stage.refused()
    assert (error.subject, error.limit) == ("principal:acme bob", "concurrent_calls")
    held += [await stage.begin(caller("alice")) for _ in range(500)]
    assert (await stage.refused(caller("carol"))).subject == "tenant:acme"
    for each in held:
        stage.limits.settle(*each)
    assert isinstance(stage.store, MemoryStore)
    assert not stage.store._taken


def test_what_ships_says_what_holds_where_nothing_is_said() -> None:
    shipped = tomllib.loads((default_configs() / "gateway.toml").read_text())["limits"]
    assert Levels.model_validate(shipped) == DEFAULT


async def test_a_call_that_found_no_place_is_charged_nothing() -> None:
    stage = Stage(config(rate(1, 3), {**rate(1, 3), "concurrent_calls": 1}))
    held = await stage.begin()
    for _ in range(10):
        assert (await stage.refused()).limit == "concurrent_calls"
    stage.limits.settle(*held)
    await stage.once()
    await stage.once()
    assert (await stage.refused()).limit == "requests_per_second"


async def test_a_flood_of_subjects_is_forgotten_as_it_passes() -> None:
    stage = Stage(config(rate(100_000, 100_000), rate(10, 1)))
    assert isinstance(stage.store, MemoryStore)
    largest = 0
    for number in range(20_000):
        stage.clock.now += SECOND // 1000
        await stage.once(caller(f"subject-{number}"))
        largest = max(largest, len(stage.store))
    assert largest < 300  # a bucket is full again after 100 calls, and is found soon after


async def test_refused_callers_leave_nothing() -> None:
    stage = Stage(config(rate(1, 1), rate(1, 1)))
    assert isinstance(stage.store, MemoryStore)
    await stage.once()
    for number in range(1000):
        await stage.refused(caller(f"subject-{number}"))
    assert len(stage.store) == 2


async def test_a_full_store_refuses_who_is_new_rather_than_forget_who_is_known() -> None:
    clock = Clock()
    stage = Stage(config(rate(1000, 1000), rate(1, 2)), MemoryStore(clock, max_buckets=10), clock)
    with pytest.raises(Unavailable) as caught:
        for number in range(20):
            await stage.once(caller(f"subject-{number}"))
    assert caught.value.reason == "OVERLOADED"
    await stage.once(caller("subject-0"))
    assert (await stage.refused(caller("subject-0"))).reason == "RATE_LIMITED"
    clock.now += 3 * SECOND
    await stage.once(caller("subject-99"))


async def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    clock = Clock()
    clock.now = 100 * SECOND
    stage = Stage(config(rate(1, 5), rate(1, 5)), clock=clock)
    admitted = 0
    for _ in range(10):
        for stage.clock.now in (0, 100 * SECOND):
            try:
                await stage.once()
            except LimitExceeded:
                continue
            admitted += 1
    assert admitted == 5


async def test_what_is_left_is_said() -> None:
    stage = Stage(config(rate(1, 5), {**rate(1, 3), "tokens_per_minute": 1000}))
    call = await stage.once(asked=generate(max_output_tokens=100), used=40)
    assert dict(call.trailers) == {"x-meshgate-remaining-requests": "2", "x-meshgate-remaining-tokens": "960"}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"principal": {"burst": 3}}, "one requires the other"),
        ({"tenant": {"requests_per_second": 3}}, "one requires the other"),
        ({"tenant": {"token_burst": 3}}, "token_burst: requires tokens_per_minute"),
        ({"tenant": {"requests_per_second": 0.001, "burst": 1000}}, "burst: takes longer than a week"),
        ({"total": {"tokens_per_minute": 1, "token_burst": 100_000}}, "token_burst: takes longer than a week"),
        ({"total": {"concurrent_calls": 0}}, "total.concurrent_calls"),
        ({"on_outage": "allow"}, "on_outage"),
        ({"models": {"x": {"user": {}}}}, "models.x.user"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LimitsConfig.model_validate(section)
    assert key in str(caught.value)


@given(steps=st.lists(st.tuples(st.integers(0, 3 * SECOND), st.sampled_from("abc")), max_size=60))
async def test_never_more_than_the_tenant_may(steps: Sequence[tuple[int, str]]) -> None:
    stage = Stage(config(rate(2, 4), rate(1, 3)))
    admitted = 0
    for wait, subject in steps:
        stage.clock.now += wait
        try:
            await stage.once(caller(subject))
        except LimitExceeded:
            continue
        admitted += 1
        assert admitted <= 2 * stage.clock.now / SECOND + 4
