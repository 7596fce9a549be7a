"""Places before the model: who is refused, who waits, what is told, and that nothing stays taken."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from meshgate.errors import DeadlineExceeded, Unavailable
from services.batching.latency_model import LatencyModel
from services.generation.serving.admission import Admission
from tests.support.fixtures.generation import Clock


def admission(candidates: int = 4, tokens: int = 100, clock: Clock | None = None) -> Admission:
    return Admission(candidates, tokens, LatencyModel(8), clock or Clock())


async def hold(stack: AsyncExitStack, entrance: Admission, tenant: str, count: int = 1, *, wait: bool = False) -> None:
    await stack.enter_async_context(entrance.places(tenant, count, wait=wait, remaining=5.0))


async def test_a_unary_call_without_a_place_is_refused_at_once() -> None:
    entrance = admission(2)
    async with AsyncExitStack() as stack:
        await hold(stack, entrance, "a")
        await hold(stack, entrance, "b")
        with pytest.raises(Unavailable) as refused:
            await hold(stack, entrance, "c")
        assert refused.value.reason == "OVERLOADED"
        assert refused.value.retry_after is not None
    assert entrance.candidates.held == 0


async def test_no_tenant_takes_all_places() -> None:
    entrance = admission(8)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await hold(stack, entrance, "loud")
        with pytest.raises(Unavailable):
            await hold(stack, entrance, "loud")
        await hold(stack, entrance, "quiet")


async def test_a_stream_waits_for_a_place() -> None:
    entrance = admission(1)
    async with AsyncExitStack() as waiting:
        async with AsyncExitStack() as stack:
            await hold(stack, entrance, "a")
            entering = asyncio.create_task(hold(waiting, entrance, "b", wait=True))
            await asyncio.sleep(0)
            assert not entering.done()
        await entering
        assert entrance.candidates.of("b") == 1


async def test_a_stream_that_waits_too_long_or_leaves_holds_nothing() -> None:
    entrance = admission(1)
    async with AsyncExitStack() as stack:
        await hold(stack, entrance, "a")
        with pytest.raises(DeadlineExceeded):
            async with entrance.places("b", 1, wait=True, remaining=0.01):
                raise AssertionError("there was no place")
        leaving = asyncio.create_task(hold(stack, entrance, "c", wait=True))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert entrance.candidates.held == 0
    assert entrance.candidates.tenants == 0


async def test_the_time_to_come_back_is_how_fast_places_became_free() -> None:
    clock = Clock()
    entrance = admission(3, clock=clock)
    async with AsyncExitStack() as last:
        await hold(last, entrance, "z")
        for _ in range(40):
            async with entrance.places("a", 1, wait=False, remaining=None):
                clock.now += 0.25
        await hold(last, entrance, "b")
        with pytest.raises(Unavailable) as refused:
            async with entrance.places("c", 2, wait=False, remaining=None):
                raise AssertionError("there was no place")
    assert refused.value.retry_after == pytest.approx(0.5, rel=0.01)


async def test_prompts_are_bounded_by_their_tokens() -> None:
    entrance = admission(tokens=100)
    async with entrance.prompt("a", 60, wait=False, remaining=None):
        with pytest.raises(Unavailable):
            async with entrance.prompt("b", 41, wait=False, remaining=None):
                raise AssertionError("there was no room")
        async with entrance.prompt("b", 40, wait=False, remaining=None):
            assert entrance.tokens.held == 100
    assert entrance.tokens.held == 0


async def test_a_prompt_too_large_for_the_room_is_let_in_alone() -> None:
    async with admission(tokens=10).prompt("a", 50, wait=False, remaining=None):
        pass


async def test_who_has_no_time_to_have_the_prompt_read_is_told_so_at_once() -> None:
    pace = LatencyModel(8)
    for tokens in (8, 4, 8, 2):
        pace.learn(tokens, 0.1 * tokens)
    entrance = Admission(4, 1000, pace, Clock())
    async with entrance.prompt("a", 20, wait=False, remaining=2.5):
        pass
    with pytest.raises(DeadlineExceeded):
        async with entrance.prompt("a", 20, wait=True, remaining=1.5):
            raise AssertionError("two seconds are needed")
    assert entrance.tokens.held == 0


async def test_who_waits_when_the_server_stops_is_told() -> None:
    entrance = admission(1)
    async with AsyncExitStack() as stack:
        await hold(stack, entrance, "a")
        waiting = asyncio.create_task(hold(stack, entrance, "b", wait=True))
        await asyncio.sleep(0)
        entrance.close()
        with pytest.raises(Unavailable) as refused:
            await waiting
        assert refused.value.reason == "DRAINING"


async def test_who_waits_when_the_model_fails_is_told_that() -> None:
    entrance = admission(1)
    async with AsyncExitStack() as stack:
        await hold(stack, entrance, "a")
        waiting = asyncio.create_task(hold(stack, entrance, "b", wait=True))
        await asyncio.sleep(0)
        entrance.close(lambda: Unavailable("the model failed", reason="MODEL_FAILED"))
        with pytest.raises(Unavailable) as refused:
            await waiting
        assert refused.value.reason == "MODEL_FAILED"
