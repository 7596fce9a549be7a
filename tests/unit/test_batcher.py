"""The queue before a model: batches gather while one runs, the departed leave, a bad input fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from meshgate.errors import Internal, Unavailable
from services.batching import Batcher, Bounds


class Model:
    """Doubles numbers, one batch at a time, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        self.running.set()
        assert self.go_on.wait(10)
        if 13 in batch:
            raise RuntimeError("a secret of the model")
        return [2 * number for number in batch]


@asynccontextmanager
async def batcher(model: Model, batch_tokens: int = 100, queue_tokens: int = 1000) -> AsyncIterator[Batcher[int, int]]:
    made: Batcher[int, int] = Batcher(model.run, Bounds(batch_tokens, queue_tokens), asyncio.Event())
    made.start()
    try:
        yield made
    finally:
        model.go_on.set()
        await made.stop(5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.to_thread(lambda: None)


async def test_a_lone_call_runs_at_once() -> None:
    model = Model()
    async with batcher(model) as queue:
        assert await queue.submit([1, 2], [10, 10]) == [2, 4]
    assert model.batches == [[1, 2]]


async def test_calls_gather_while_a_batch_runs() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model) as queue:
        first = asyncio.create_task(queue.submit([0], [10]))
        await until(model.running.is_set)
        others = [asyncio.create_task(queue.submit([number], [10])) for number in range(1, 5)]
        await asyncio.sleep(0)
        model.go_on.set()
        assert [await task for task in (first, *others)] == [[0], [2], [4], [6], [8]]
    assert [sorted(batch) for batch in model.batches] == [[0], [1, 2, 3, 4]]


async def test_a_departed_caller_is_not_run() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model) as queue:
        first = asyncio.create_task(queue.submit([0], [10]))
        await until(model.running.is_set)
        gone, stays = (asyncio.create_task(queue.submit([number], [10])) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        model.go_on.set()
        assert [await task for task in (first, stays)] == [[0], [4]]
    assert model.batches == [[0], [2]]


async def test_a_bad_input_fails_alone_and_says_nothing() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model) as queue:
        first = asyncio.create_task(queue.submit([0], [10]))
        await until(model.running.is_set)
        bad, good = (asyncio.create_task(queue.submit([number], [10])) for number in (13, 2))
        await asyncio.sleep(0)
        model.go_on.set()
        assert [await task for task in (first, good)] == [[0], [4]]
        with pytest.raises(Internal) as caught:
            await bad
    assert "secret" not in str(caught.value)


async def test_a_full_queue_refuses_and_says_when() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model, queue_tokens=25) as queue:
        first = asyncio.create_task(queue.submit([0], [20]))
        await until(model.running.is_set)
        with pytest.raises(Unavailable) as caught:
            await queue.submit([1], [10])
        assert caught.value.reason == "OVERLOADED"
        assert caught.value.retry_after
        waiting = asyncio.create_task(queue.submit([1], [10], wait=True))
        await asyncio.sleep(0)
        model.go_on.set()
        assert [await task for task in (first, waiting)] == [[0], [2]]


async def test_one_call_larger_than_the_queue_still_runs() -> None:
    async with batcher(Model(), queue_tokens=5) as queue:
        assert await queue.submit([1, 2], [10, 10]) == [2, 4]


async def test_a_model_that_fails_everything_is_given_up() -> None:
    failed = asyncio.Event()
    model = Model()
    queue: Batcher[int, int] = Batcher(model.run, Bounds(100, 1000), failed)
    queue.start()
    for _ in range(8):
        with pytest.raises(Internal):
            await queue.submit([13], [1])
    assert failed.is_set()
    with pytest.raises(Unavailable) as caught:
        await queue.submit([1], [1])
    assert caught.value.reason == "MODEL_FAILED"
    await queue.stop(1)


async def test_draining_finishes_what_waits_and_refuses_more() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model) as queue:
        running = asyncio.create_task(queue.submit([1], [10]))
        await until(model.running.is_set)
        stopping = asyncio.create_task(queue.stop(10))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await queue.submit([2], [10])
        assert caught.value.reason == "DRAINING"
        model.go_on.set()
        assert await running == [2]
        await stopping
        assert not queue.failed.is_set()
