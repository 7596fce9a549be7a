"""Limits in a real Valkey: exact for any number of callers, settled whatever the call's end, and freed by leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.call import Call
from gateway.limits import LimitsConfig, RateLimiter, Reservation, lua_scripts
from gateway.limits.memory_store import MemoryStore
from gateway.limits.plan import Plans
from gateway.limits.redis_store import RedisStore
from gateway.limits.store import Grant
from gateway.redis_client import Client
from meshgate import errors
from tests.support.fixtures.limits import Clock, call_of, caller, generate
from tests.support.network.valkey import PATIENT, Valkey, until

SECOND = 1_000_000_000
TODAY = 1_800_000_000
"""Seconds since 1970, on the clock that tests set."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    made = Valkey(tmp_path_factory.mktemp("valkey"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def valkey(server: Valkey) -> AsyncIterator[Valkey]:
    """Empty."""
    async with server.client() as client:
        await client.flushall()
    yield server


class StoreClock:
    """What the scripts of some stores read instead of the server's; nothing is forgotten by the server's either."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.microseconds = TODAY * 1_000_000

    async def set(self, microseconds: int = TODAY * 1_000_000) -> None:
        self.microseconds = microseconds
        await self._client.set("clock", microseconds)

    async def advance(self, seconds: float) -> None:
        await self.set(self.microseconds + round(seconds * 1_000_000))


def tell_time_by(client: Client, *stores: RedisStore) -> StoreClock:
    """Has the very scripts read a clock that the test sets, and the server keep all keys for long."""
    parts = "{math.floor(t / 1000000), math.fmod(t, 1000000)}"
    ours = {
        lua_scripts.CLOCK: f"(function() local t = redis.call('GET', 'clock') return {parts} end)()",
        "math.ceil(debt / 1000000) + 1": "3600000",
        "2 * length": "3600000",
    }
    for store in stores:
        store._take = client.register_script(_replaced(lua_scripts.TAKE, ours))
        store._settle = client.register_script(_replaced(lua_scripts.SETTLE, ours))
        store._renew = client.register_script(_replaced(lua_scripts.RENEW, ours))
    for text in ours:
        assert text in lua_scripts.TAKE
    return StoreClock(client)


def _replaced(script: str, texts: Mapping[str, str]) -> str:
    for old, new in texts.items():
        script = script.replace(old, new)
    return script


def shared_of(limits: RateLimiter) -> RedisStore:
    store: Any = limits._store
    assert isinstance(store._shared, RedisStore)
    return store._shared


async def begin(limits: RateLimiter, subject: str = "bob", **fields: Any) -> tuple[Reservation, Call]:
    asked = generate(**fields)
    call = call_of(asked)
    return await limits.reserve(call, caller(subject), asked), call


async def left(valkey: Valkey) -> list[Any]:
    """The keys of places and of buckets of tokens."""
    async with valkey.client() as client:
        return [key for key in await client.keys("*") if b":calls:" in key or b":tokens:" in key]


async def test_workers_share_one_budget(valkey: Valkey) -> None:
    config = {"tenant": {"requests_per_second": 0.01, "burst": 40}}
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(valkey.limits(config)) for _ in range(4)]
        tries = [begin(worker, f"subject-{number}") for number in range(25) for worker in workers]
        made = await asyncio.gather(*tries, return_exceptions=True)
        granted = [each for each in made if isinstance(each, tuple)]
        refused = [each for each in made if isinstance(each, errors.LimitExceeded)]
        assert (len(granted), len(refused)) == (40, 60)
        assert {error.subject for error in refused} == {"tenant:acme"}


async def test_places_are_shared_and_come_back(valkey: Valkey) -> None:
    config = {"principal": {"concurrent_calls": 3}}
    async with valkey.limits(config) as one, valkey.limits(config) as other:
        held = [await begin(one), await begin(other), await begin(one)]
        for worker in (one, other):
            with pytest.raises(errors.LimitExceeded) as caught:
                await begin(worker)
            assert (caught.value.reason, caught.value.limit) == ("CONCURRENCY_LIMITED", "concurrent_calls")
            assert caught.value.retry_after is None
        one.settle(*held[0])

        async def again() -> bool:
            try:
                await begin(other)
            except errors.LimitExceeded:
                return False
            return True

        await until(again)


async def places_free(valkey: Valkey) -> bool:
    return not [key for key in await left(valkey) if b":calls:" in key]


async def test_a_retry_after_what_it_says_succeeds_and_no_sooner(valkey: Valkey) -> None:
    config = {"principal": {"requests_per_second": 20, "burst": 1}}
    async with valkey.limits(config) as limits, valkey.client() as client:
        clock = tell_time_by(client, shared_of(limits))
        await clock.set()
        for _ in range(10):
            await begin(limits)
            await clock.advance(0.0134)
            with pytest.raises(errors.LimitExceeded) as caught:
                await begin(limits)
            after = caught.value.retry_after or 0
            assert after == 0.037
            await clock.advance(after - 0.001)
            with pytest.raises(errors.LimitExceeded):
                await begin(limits)
            await clock.advance(0.001)


async def test_a_bucket_is_kept_until_it_is_full(valkey: Valkey) -> None:
    async with valkey.limits({"tenant": {"requests_per_second": 0.01, "burst": 40}}) as limits:
        await begin(limits)
        await begin(limits)
        async with valkey.client() as client:
            (key,) = await client.keys("*:requests:tenant:*")
            assert 190_000 < await client.pttl(key) <= 200_001


async def scripts_run(valkey: Valkey) -> int:
    async with valkey.client() as client:
        stats = await client.info("commandstats")
    assert not {"cmdstat_eval", "cmdstat_script|load", "cmdstat_multi", "cmdstat_watch"} & set(stats)
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_a_decision_is_one_script_and_settlements_go_together(valkey: Valkey) -> None:
    """Whatever it decides on: three owners' requests, tokens, calls and streams."""
    every = {"requests_per_second": 1000, "burst": 1000, "tokens_per_minute": 1_000_000, "concurrent_calls": 1000}
    config = {"total": every, "tenant": every, "principal": every, "lease_seconds": 3600}  # none is renewed meanwhile
    async with valkey.limits(config) as limits:
        limits.settle(*await begin(limits))  # the scripts are there from now on
        await until(lambda: places_free(valkey))
        async with valkey.client() as client:
            await client.config_resetstat()
        held = [await begin(limits, max_output_tokens=100) for _ in range(50)]
        assert await scripts_run(valkey) == 50
        for reservation, call in held:
            call.output_tokens = 1
            limits.settle(reservation, call)
    assert 1 <= await scripts_run(valkey) - 50 <= 2
    assert limits.counts == {}


async def test_unused_tokens_come_back(valkey: Valkey) -> None:
    config = {"principal": {"tokens_per_minute": 1, "token_burst": 1000}}
    async with valkey.limits(config) as limits:
        for _ in range(10):
            reservation, call = await begin(limits, max_output_tokens=100)
            assert call.token_cap == reservation.tokens > 100
            call.output_tokens = 1
            limits.settle(reservation, call)
            await until(lambda: places_free(valkey))
        assert int(dict(call.trailers)["x-meshgate-remaining-tokens"]) == 990
        _, last = await begin(limits, max_output_tokens=1)
        assert last.tokens_reserved <= 20
        assert limits.counts == {}


async def test_settled_at_stop(valkey: Valkey) -> None:
    """What ended just before is told before the connection goes."""
    async with valkey.limits({"principal": {"concurrent_calls": 500, "tokens_per_minute": 1_000_000}}) as limits:
        held = [await begin(limits, max_output_tokens=100) for _ in range(150)]
        for reservation, call in held:
            limits.abandon(reservation, call, errors.NotFound("no"))
    assert await left(valkey) == []


async def test_a_caller_who_leaves_while_the_store_decides_is_charged_nothing(valkey: Valkey) -> None:
    config = {"principal": {"concurrent_calls": 5, "tokens_per_minute": 1_000_000}}
    async with valkey.limits(config) as limits:
        tasks = [asyncio.create_task(begin(limits, max_output_tokens=100)) for _ in range(5)]
        await asyncio.sleep(0)  # begun, not answered
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
        )

        async def nothing_held() -> bool:
            return await left(valkey) == []

        await until(nothing_held)


async def test_the_places_of_the_dead_come_back_and_those_of_the_living_stay(valkey: Valkey) -> None:
    """A killed process neither settles nor renews: what is here is the same as that, a store nobody speaks for."""
    config = {"principal": {"concurrent_calls": 2}, "lease_seconds": 1}
    async with valkey.limits(config) as living, valkey.client() as client:
        dead = RedisStore(client, valkey.config.prefix, PATIENT, 1, living.counts)
        clock = tell_time_by(client, shared_of(living), dead)

        async def renewed() -> bool:
            """Whether a place is kept for a second from now on, which in its first third the living see to."""
            (key,) = [key for key in await left(valkey) if b":principal:" in key]
            leases: Any = await client.zrange(key, 0, -1, withscores=True)
            return bool(max(end for _, end in leases) == clock.microseconds + 1_000_000)

        async def full() -> None:
            with pytest.raises(errors.LimitExceeded):
                await begin(living)

        await clock.set()
        await begin(living)
        plan = Plans(LimitsConfig.model_validate(config)).of("acme", "bob", "", streams=False)
        assert isinstance(await dead.take(plan, 0, 0), Grant)
        await dead._settlements.stop()  # silent from now on
        await clock.advance(0.99)
        await until(renewed)
        await full()
        await clock.advance(0.01)
        await begin(living)
        for _ in range(3):  # longer than a lease: the living renew theirs
            await full()
            await clock.advance(0.9)
            await until(renewed)
        await full()


async def test_what_was_not_said_before_the_store_hung_is_said_after(valkey: Valkey) -> None:
    async with valkey.limits({"principal": {"concurrent_calls": 9}}, timeout_seconds=2) as limits:
        held = [await begin(limits) for _ in range(9)]
        with valkey.hanging():
            limits.settle(*held.pop())
            await until(lambda: limits.counts["lost"])
            for each in held:
                limits.settle(*each)
        back: list[Any] = []

        async def all_back() -> bool:
            try:
                back.append(await begin(limits))
            except errors.MeshError:
                return False
            return len(back) == 8

        await until(all_back)
        assert limits.counts["lost"] == 1


async def test_numbers_out_of_any_range_reserve_all_there_is_and_no_more(valkey: Valkey) -> None:
    huge = {"max_output_tokens": 2**32 - 1, "candidate_count": 2**32 - 1}
    async with valkey.limits({"principal": {"tokens_per_minute": 1000, "token_burst": 900}}) as limits:
        asked = generate(**huge)
        call = call_of(asked, "unheard of")
        await limits.reserve(call, caller(), asked)
        assert call.token_cap == call.tokens_reserved == 900


async def test_a_script_that_the_store_forgot_is_sent_again(valkey: Valkey) -> None:
    async with valkey.limits({}) as limits:
        await begin(limits)
        async with valkey.client() as client:
            await client.script_flush()
        reservation, call = await begin(limits)
        limits.settle(reservation, call)
        assert limits.counts == {}


async def test_a_settlement_that_is_told_twice_counts_once(valkey: Valkey) -> None:
    config = {"principal": {"tokens_per_minute": 1, "token_burst": 1000}}
    async with valkey.limits(config) as limits, valkey.client() as client:
        await begin(limits, max_output_tokens=200)
        store = RedisStore(client, valkey.config.prefix, PATIENT, 30, limits.counts)
        plan = Plans(LimitsConfig.model_validate(config)).of("acme", "bob", "", streams=False)
        grant = await store.take(plan, 100, 100)
        assert isinstance(grant, Grant)
        for _ in range(5):
            await store._settled([(grant, 100)])
        after = await store.take(plan, 1, 1)
        assert isinstance(after, Grant)
        assert after.tokens_left <= grant.tokens_left + 100
        await store.stop()


CONFIG = LimitsConfig.model_validate(
    {
        "total": {"tokens_per_minute": 60, "token_burst": 60},
        "tenant": {"tokens_per_minute": 30, "token_burst": 40, "requests_per_second": 0.5, "burst": 12},
        "principal": {"tokens_per_minute": 13, "token_burst": 30, "concurrent_calls": 3, "concurrent_streams": 2},
        "models": {"big": {"principal": {"tokens_per_minute": 7, "token_burst": 9}}},
    }
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "settle", "wait", "overdraw"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 11),
    ),
    min_size=1,
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(steps=steps)
@example(steps=[("take", 0, 1, 0), ("overdraw", 9, 0, 0), ("take", 0, 0, 0)])  # nothing is granted even to who owes
async def test_memory_and_store_decide_alike(valkey: Valkey, steps: list[tuple[str, int, int, int]]) -> None:
    """The same decisions, waits and amounts left, for the same sequence under the same clock."""
    clock = Clock()
    clock.now = TODAY * SECOND
    memory = MemoryStore(clock)
    plans = Plans(CONFIG)
    async with valkey.client() as client:
        await client.flushall()
        shared = RedisStore(client, "alike", PATIENT, 3600, RateLimiter(CONFIG).counts)
        told = tell_time_by(client, shared)
        pairs: list[tuple[Grant, Grant]] = []
        for kind, first, second, which in steps:
            await told.set(clock.now // 1000)
            if kind == "wait":
                clock.now += first * SECOND + second * 1_001_000
            elif kind == "take":
                plan = plans.of("acme", "ab"[which % 2], ("", "big")[which % 3 == 0], streams=which > 5)
                least, cost = min(first, second), first + second
                least, cost = min(least, plan.max_tokens), min(cost, plan.max_tokens)
                here, there = await memory.take(plan, least, cost), await shared.take(plan, least, cost)
                if isinstance(here, Grant) and isinstance(there, Grant):
                    assert _seen(here) == _seen(there)
                    pairs.append((here, there))
                else:
                    assert here == there
            elif pairs:
                here, there = pairs.pop(which % len(pairs))
                unused = -first if kind == "overdraw" else min(first, here.tokens)
                memory.settle(here, unused)
                shared._settlements._held.pop(there.lease)
                await shared._settled([(there, unused)])
        await shared.stop()


def _seen(grant: Grant) -> tuple[int, ...]:
    return grant.tokens, grant.requests_left, grant.tokens_left
