"""Limits in a real Valkey: exact whoever asks, settled whatever becomes of the caller, and given back by the dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.call import Call
from gateway.limits import Limits, LimitsConfig, Reservation, scripts
from gateway.limits.memory import MemoryStore
from gateway.limits.plan import Plans
from gateway.limits.shared import SharedStore
from gateway.limits.store import Grant
from meshgate import errors
from tests.integration.limits_store import Valkey, until
from tests.unit.limits_doubles import Clock, call_of, caller, generate

SECOND = 1_000_000_000


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


async def begin(limits: Limits, subject: str = "bob", **fields: Any) -> tuple[Reservation, Call]:
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


async def test_a_retry_after_what_it_says_succeeds(valkey: Valkey) -> None:
    async with valkey.limits({"principal": {"requests_per_second": 20, "burst": 1}}) as limits:
        for _ in range(10):
            await begin(limits)
            with pytest.raises(errors.LimitExceeded) as caught:
                await begin(limits)
            after = caught.value.retry_after or 0
            assert 0 < after <= 0.05
            await asyncio.sleep(after)


async def scripts_run(valkey: Valkey) -> int:
    async with valkey.client() as client:
        stats = await client.info("commandstats")
    assert not {"cmdstat_eval", "cmdstat_script|load", "cmdstat_multi", "cmdstat_watch"} & set(stats)
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_a_decision_is_one_script_and_settlements_go_together(valkey: Valkey) -> None:
    """Whatever it decides on: three owners' requests, tokens, calls and streams."""
    every = {"requests_per_second": 1000, "burst": 1000, "tokens_per_minute": 1_000_000, "concurrent_calls": 1000}
    async with valkey.limits({"total": every, "tenant": every, "principal": every}) as limits:
        limits.settle(*await begin(limits))  # the scripts are there from now on

        async def settled() -> bool:
            return not [key for key in await left(valkey) if b":calls:" in key]

        await until(settled)
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
    config = {"principal": {"tokens_per_minute": 60_000, "token_burst": 1000}}
    async with valkey.limits(config) as limits:
        for _ in range(10):
            reservation, call = await begin(limits, max_output_tokens=100)
            assert call.token_cap == reservation.tokens > 100
            call.output_tokens = 1
            limits.settle(reservation, call)
        assert int(dict(call.trailers)["x-meshgate-remaining-tokens"]) <= 1000
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
    async with valkey.limits(config) as living:
        await begin(living)
        async with valkey.client() as client:
            dead = SharedStore(client, valkey.config.prefix, 0.5, 1, living.counts)
            plan = Plans(LimitsConfig.model_validate(config)).of("acme", "bob", "", streams=False)
            assert isinstance(await dead.take(plan, 0, 0), Grant)
            await dead._settler.stop()  # silent from now on
            for _ in range(3):
                with pytest.raises(errors.LimitExceeded):
                    await begin(living)
            begun = asyncio.get_running_loop().time()

            async def again() -> bool:
                try:
                    await begin(living)
                except errors.LimitExceeded:
                    return False
                return True

            await until(again)
            assert 0.3 < asyncio.get_running_loop().time() - begun < 3
            await asyncio.sleep(1.5)  # longer than a lease: the living renew theirs
            with pytest.raises(errors.LimitExceeded):
                await begin(living)


async def test_what_was_not_said_before_the_store_hung_is_said_after(valkey: Valkey) -> None:
    async with valkey.limits({"principal": {"concurrent_calls": 9}}) as limits:
        held = [await begin(limits) for _ in range(9)]
        async with valkey.client() as client:
            await client.client_pause(1500, all=True)
        limits.settle(*held.pop())
        await until(lambda: limits.counts["lost"])
        for each in held:
            limits.settle(*each)

        async def all_back() -> bool:
            try:
                for _ in range(8):
                    await begin(limits, "bob")
            except errors.MeshError:
                return False
            return True

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
    config = {"principal": {"tokens_per_minute": 60, "token_burst": 1000}}
    async with valkey.limits(config) as limits, valkey.client() as client:
        await begin(limits, max_output_tokens=200)
        store = SharedStore(client, valkey.config.prefix, 0.5, 30, limits.counts)
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
    clock.now = 1_800_000_000 * SECOND
    memory = MemoryStore(clock)
    plans = Plans(CONFIG)
    async with valkey.client() as client:
        await client.flushall()
        shared = SharedStore(client, "alike", 0.5, 3600, Limits(CONFIG).counts)
        _tell_time_by(client, shared)
        pairs: list[tuple[Grant, Grant]] = []
        for kind, first, second, which in steps:
            await client.set("clock", clock.now // 1000)
            if kind == "wait":
                clock.now += first * SECOND + second * 1_001_000
            elif kind == "take":
                plan = plans.of("acme", "ab"[which % 2], ("", "big")[which % 3 == 0], streams=which > 5)
                least, cost = min(first, second), first + second
                least, cost = min(least, plan.most_tokens), min(cost, plan.most_tokens)
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
                shared._settler._held.pop(there.lease)
                await shared._settled([(there, unused)])
        await shared.stop()


def _seen(grant: Grant) -> tuple[int, ...]:
    return grant.tokens, grant.requests_left, grant.tokens_left


def _tell_time_by(client: Any, store: SharedStore) -> None:
    """Has the very scripts read a clock that the test sets, instead of the server's."""
    parts = "{math.floor(t / 1000000), math.fmod(t, 1000000)}"
    ours = f"(function() local t = redis.call('GET', 'clock') return {parts} end)()"
    store._take = client.register_script(scripts.TAKE.replace(scripts.CLOCK, ours))
    store._settle = client.register_script(scripts.SETTLE.replace(scripts.CLOCK, ours))
    assert ours in store._take.script
