"""Batches side by side: each has its callers, its end and its part of the time, and one that fails fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.errors import Internal, Unavailable
from services.batching import Batcher, Bounds
from services.batching.workers import SharedTime, default_workers


class Model:
    """Doubles numbers, a batch as soon as the test lets it: by the batch's first number."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._changed = threading.Condition()
        self._let: set[int] = set()

    def run(self, batch: Sequence[int]) -> list[int]:
        with self._changed:
            self.batches.append(list(batch))
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: batch[0] in self._let, 10)
        if 13 in batch:
            raise RuntimeError
        if 66 in batch:
            raise SystemExit
        return [2 * number for number in batch]

    def let(self, *firsts: int) -> None:
        with self._changed:
            self._let.update(firsts)
            self._changed.notify_all()

    async def begun(self, count: int) -> None:
        """Returns once so many batches have."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: len(self.batches) >= count, 10)

        assert await asyncio.to_thread(wait)


@asynccontextmanager
async def batcher(model: Model, workers: int = 2, bounds: Bounds | None = None) -> AsyncIterator[Batcher[int, int]]:
    made: Batcher[int, int] = Batcher(model.run, bounds or Bounds(1000, 10_000), asyncio.Event())
    made.start(workers)
    try:
        yield made
    finally:
        model.let(*range(100))
        await made.stop(5)


def call(queue: Batcher[int, int], *numbers: int, length: int = 300) -> asyncio.Task[list[int]]:
    return asyncio.create_task(queue.submit(numbers, [length] * len(numbers)))


async def begun(model: Model, queue: Batcher[int, int], *numbers: int) -> list[asyncio.Task[list[int]]]:
    """Calls whose batches run side by side."""
    calls = []
    for number in numbers:
        calls.append(call(queue, number))
        await model.begun(len(model.batches) + 1)
    return calls


async def test_as_many_run_as_there_are_workers_and_each_ends_for_its_own_callers() -> None:
    model = Model()
    async with batcher(model) as queue:
        one, two = await begun(model, queue, 1, 2)
        three, four = call(queue, 3), call(queue, 4)
        await asyncio.sleep(0)
        model.let(2)
        assert await two == [4]
        await model.begun(3)
        assert not one.done()
        model.let(3, 4)
        assert [await three, await four] == [[6], [8]]
        model.let(1)
        assert await one == [2]
    assert model.batches[:2] == [[1], [2]]


async def test_what_is_in_hand_is_divided_among_the_workers() -> None:
    model = Model()
    model.let(*range(100))
    async with batcher(model) as queue:
        assert await call(queue, *range(8), length=100) == [2 * number for number in range(8)]
    assert [len(batch) for batch in model.batches] == [4, 4]


async def test_what_is_little_is_not_divided_and_what_one_worker_has_neither() -> None:
    for workers, length in ((2, 32), (1, 100)):
        model = Model()
        model.let(*range(100))
        async with batcher(model, workers) as queue:
            await call(queue, *range(8), length=length)
        assert [len(batch) for batch in model.batches] == [8]


async def test_a_bad_input_fails_alone_beside_a_good_batch() -> None:
    model = Model()
    async with batcher(model) as queue:
        good, bad = await begun(model, queue, 1, 13)
        model.let(13)
        with pytest.raises(Internal):
            await bad
        assert not queue.failed.is_set()
        model.let(1)
        assert await good == [2]


async def test_a_model_that_is_broken_fails_every_batch_at_once() -> None:
    model = Model()
    async with batcher(model) as queue:
        other, broken = await begun(model, queue, 1, 66)
        waiting = call(queue, 3)
        await asyncio.sleep(0)
        model.let(66)
        for each in await asyncio.gather(other, broken, waiting, return_exceptions=True):
            assert isinstance(each, Unavailable)
            assert each.reason == "MODEL_FAILED"
        assert queue.failed.is_set()
        model.let(1)  # nobody waits for what it makes
    assert len(model.batches) == 2


async def test_one_batch_that_hangs_ends_the_model_and_is_not_waited_for() -> None:
    model = Model()
    queue: Batcher[int, int] = Batcher(model.run, Bounds(1000, 10_000, hang_seconds=0.2), asyncio.Event())
    queue.start(2)
    hangs = call(queue, 1)
    await model.begun(1)
    model.let(2)
    assert await call(queue, 2) == [4]
    with pytest.raises(Unavailable):
        await hangs
    async with asyncio.timeout(5):
        await queue.stop(600)
    model.let(1)


async def test_draining_waits_for_all_batches() -> None:
    model = Model()
    async with batcher(model) as queue:
        one, two = await begun(model, queue, 1, 2)
        stopping = asyncio.create_task(queue.stop(10))
        await asyncio.sleep(0)
        model.let(2)
        assert await two == [4]
        assert not stopping.done()
        model.let(1)
        assert await one == [2]
        await stopping
    assert not [each for each in threading.enumerate() if each.name == "model"]


async def test_the_worker_that_ran_last_runs_next() -> None:
    names: list[str] = []

    def run(batch: Sequence[int]) -> list[int]:
        names.append(str(threading.get_ident()))
        return list(batch)

    queue: Batcher[int, int] = Batcher(run, Bounds(100, 1000), asyncio.Event())
    queue.start(3)
    for number in range(5):
        await queue.submit([number], [1])
    await queue.stop(5)
    assert len(set(names)) == 1


async def test_how_long_it_takes_is_told_by_what_all_workers_do_together() -> None:
    model, now = Model(), [0.0]
    queue: Batcher[int, int] = Batcher(model.run, Bounds(300, 900), asyncio.Event(), lambda: now[0])
    queue.start(2)
    pair = [call(queue, 1), call(queue, 2)]
    await model.begun(2)
    now[0] = 4.0  # two batches in four seconds
    model.let(1, 2)
    await asyncio.gather(*pair)
    held = [asyncio.create_task(queue.submit([number], [300], tenant=str(number))) for number in (3, 4)]
    await model.begun(4)
    with pytest.raises(Unavailable) as caught:
        await queue.submit([5], [600])
    assert caught.value.retry_after == pytest.approx(4.0)
    model.let(3, 4)
    await asyncio.gather(*held)
    await queue.stop(5)


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(0, 3)), max_size=40))
def test_seconds_of_batches_are_those_in_which_any_ran(steps: list[tuple[float, int]]) -> None:
    now, busy, made = 0.0, 0.0, 0.0
    time, running = SharedTime(lambda: now), dict[int, float]()
    for seconds, worker in [*steps, *((0.0, worker) for worker in range(4))]:
        now, busy = now + seconds, busy + (seconds if running else 0.0)
        if worker in running:
            made += time.end(running.pop(worker))
        else:
            running[worker] = time.begin()
    now += 1.0
    busy += 1.0 if running else 0.0
    made += sum(time.end(began) for began in running.values())
    assert made == pytest.approx(busy)


@pytest.mark.parametrize(("threads", "batches"), [(0, 1), (1, 1), (2, 2), (64, 2)])
def test_as_many_as_is_usual_where_nobody_says(threads: int, batches: int) -> None:
    assert default_workers(threads) == batches
