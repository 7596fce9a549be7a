"""Places before the model: who is refused, who waits, what is told, and that nothing stays taken."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from meshgate.errors import DeadlineExceeded, Unavailable
from services.batching.latency_model import LatencyModel
from services.generation.serving.admission import Admission
from tests.support.fixtures.generation import Clock


def admission_of(candidates: int = 4, tokens: int = 100, clock: Clock | None = None) -> Admission:
    return Admission(candidates, tokens, LatencyModel(8), clock or Clock())


async def hold(stack: AsyncExitStack, admission: Admission, tenant: str, count: int = 1, *, wait: bool = False) -> None:
    await stack.enter_async_context(admission.slots(tenant, count, wait=wait, remaining=5.0))


async def test_a_unary_call_without_a_place_is_refused_at_once() -> None:
    admission = admission_of(2)
    async with AsyncExitStack() as stack:
        await hold(stack, admission, "a")
        await hold(stack, admission, "b")
        with pytest.raises(Unavailable) as refused:
            await hold(stack, admission, "c")
        assert refused.value.reason == "OVERLOADED"
        assert refused.value.retry_after is not None
    assert admission.candidates.held == 0


async def test_no_tenant_takes_all_places() -> None:
    admission = admission_of(8)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await hold(stack, admission, "loud")
        with pytest.raises(Unavailable):
            await hold(stack, admission, "loud")
        await hold(stack, admission, "quiet")


async def test_a_stream_waits_for_a_place() -> None:
    admission = admission_of(1)
    async with AsyncExitStack() as waiting:
        async with AsyncExitStack() as stack:
            await hold(stack, admission, "a")
            entering = asyncio.create_task(hold(waiting, admission, "b", wait=True))
            await asyncio.sleep(0)
            assert not entering.done()
        await entering
        assert admission.candidates.of("b") == 1


async def test_a_stream_that_waits_too_long_or_leaves_holds_nothing() -> None:
    admission = admission_of(1)
    async with AsyncExitStack() as stack:
        await hold(stack, admission, "a")
        with pytest.raises(DeadlineExceeded):
            async with admission.slots("b", 1, wait=True, remaining=0.01):
                raise AssertionError("there was no place")
        leaving = asyncio.create_task(hold(stack, admission, "c", wait=True))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert admission.candidates.held == 0
    assert admission.candidates.tenants == 0


async def test_the_time_to_come_back_is_how_fast_places_became_free() -> None:
    clock = Clock()
    admission = admission_of(3, clock=clock)
    async with AsyncExitStack() as last:
        await hold(last, admission, "z")
        for _ in range(40):
            async with admission.slots("a", 1, wait=False, remaining=None):
                clock.now += 0.25
        await hold(last, admission, "b")
        with pytest.raises(Unavailable) as refused:
            async with admission.slots("c", 2, wait=False, remaining=None):
                raise AssertionError("there was no place")
    assert refused.value.retry_after == pytest.approx(0.5, rel=0.01)


async def test_prompts_are_bounded_by_their_tokens() -> None:
    admission = admission_of(tokens=100)
    async with admission.prompt("a", 60, wait=False, remaining=None):
        with pytest.raises(Unavailable):
            async with admission.prompt("b", 41, wait=False, remaining=None):
                raise AssertionError("there was no room")
        async with admission.prompt("b", 40, wait=False, remaining=None):
            assert admission.tokens.held == 100
    assert admission.tokens.held == 0


async def test_a_prompt_too_large_for_the_room_is_let_in_alone() -> None:
    async with admission_of(tokens=10).prompt("a", 50, wait=False, remaining=None):
        pass


async def test_who_has_no_time_to_have_the_prompt_read_is_told_so_at_once() -> None:
    pace = LatencyModel(8)
    for tokens in (8, 4, 8, 2):
        pace.learn(tokens, 0.1 * tokens)
    admission = Admission(4, 1000, pace, Clock())
    async with admission.prompt("a", 20, wait=False, remaining=2.5):
        pass
    with pytest.raises(DeadlineExceeded):
        async with admission.prompt("a", 20, wait=True, remaining=1.5):
            raise AssertionError("two seconds are needed")
    assert admission.tokens.held == 0


async def test_who_waits_when_the_server_stops_is_told() -> None:
    admission = admission_of(1)
    async with AsyncExitStack() as stack:
        await hold(stack, admission, "a")
        waiting = asyncio.create_task(hold(stack, admission, "b", wait=True))
        await asyncio.sleep(0)
        admission.close()
        with pytest.raises(Unavailable) as refused:
            await waiting
        assert refused.value.reason == "DRAINING"


async def test_who_waits_when_the_model_fails_is_told_that() -> None:
    admission = admission_of(1)
    async with AsyncExitStack() as stack:
        await hold(stack, admission, "a")
        waiting = asyncio.create_task(hold(stack, admission, "b", wait=True))
        await asyncio.sleep(0)
        admission.close(lambda: Unavailable("the model failed", reason="MODEL_FAILED"))
        with pytest.raises(Unavailable) as refused:
            await waiting
        assert refused.value.reason == "MODEL_FAILED"
