"""The queue before a model: batches gather while one runs, the departed leave, a bad input fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from meshgate.errors import DeadlineExceeded, Internal, Unavailable
from services.batching import Batcher, Bounds


class Model:
    """Doubles numbers, one batch at a time, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.most = 1_000_000
        """More in a batch and there is no memory for it."""
        self.running = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        self.running.set()
        assert self.go_on.wait(10)
        if 13 in batch:
            raise RuntimeError("a secret of the model")
        if len(batch) > self.most:
            raise MemoryError
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


async def test_a_bad_input_is_found_by_halves() -> None:
    model = Model()
    async with batcher(model, batch_tokens=1000) as queue:
        numbers = [*range(100, 140), 13, *range(140, 163)]
        tasks = [asyncio.create_task(queue.submit([number], [10])) for number in numbers]
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, each in zip(numbers, done, strict=True) if isinstance(each, Internal)] == [13]
    assert sum(isinstance(each, list) for each in done) == 63
    assert len(model.batches) <= 1 + 2 * 6
    assert queue.counts.failed_inputs == 1


async def test_bad_inputs_in_a_row_do_not_end_a_sound_model() -> None:
    model = Model()
    failed = asyncio.Event()
    queue: Batcher[int, int] = Batcher(model.run, Bounds(100, 1000), failed, sound=1)
    queue.start()
    for _ in range(30):
        with pytest.raises(Internal):
            await queue.submit([13], [1])
    assert not failed.is_set()
    assert model.batches.count([1]) >= 3  # what it can do was tried
    assert await queue.submit([2], [1]) == [4]
    await queue.stop(1)


async def test_a_model_that_fails_what_it_could_do_is_given_up() -> None:
    model = Model()
    failed = asyncio.Event()
    queue: Batcher[int, int] = Batcher(model.run, Bounds(100, 1000), failed, sound=13)
    queue.start()
    for _ in range(8):
        with pytest.raises(Internal):
            await queue.submit([13], [1])
    await asyncio.wait_for(failed.wait(), 10)
    await queue.stop(1)


async def test_a_batch_that_memory_does_not_hold_is_split_and_the_next_are_smaller() -> None:
    model = Model()
    model.most = 8
    async with batcher(model, batch_tokens=640) as queue:
        for _ in range(2):
            tasks = [asyncio.create_task(queue.submit([number], [10])) for number in range(100, 164)]
            assert await asyncio.gather(*tasks) == [[2 * number] for number in range(100, 164)]
        first, rest = model.batches[0], model.batches[1:]
    assert len(first) == 64
    assert sum(len(batch) == 64 for batch in rest) == 0
    assert queue.counts.memory_splits == sum(len(batch) > 8 for batch in model.batches)
    assert queue.counts.memory_splits < 16


async def test_one_input_that_memory_does_not_hold_fails_alone() -> None:
    model = Model()
    model.most = 0
    async with batcher(model) as queue:
        with pytest.raises(Internal):
            await queue.submit([1], [1])
        model.most = 1
        assert await queue.submit([1], [1]) == [2]


@pytest.mark.parametrize("broken", ["leaves", "short"])
async def test_what_no_input_can_cause_ends_the_model_and_all_who_wait(broken: str) -> None:
    def run(batch: Sequence[int]) -> list[int]:
        if broken == "leaves":
            raise SystemExit
        return list(batch[1:])

    failed = asyncio.Event()
    queue: Batcher[int, int] = Batcher(run, Bounds(10, 1000), failed)
    queue.start()
    waiting = [asyncio.create_task(queue.submit([number], [10])) for number in range(5)]
    for each in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(each, Unavailable)
        assert each.reason == "MODEL_FAILED"
    assert failed.is_set()
    await queue.stop(1)


async def test_a_model_that_hangs_fails_all_who_wait_and_holds_nobody_up() -> None:
    model = Model()
    model.go_on.clear()
    failed = asyncio.Event()
    queue: Batcher[int, int] = Batcher(model.run, Bounds(10, 30, hang_seconds=0.05), failed)
    queue.start()
    waiting = [asyncio.create_task(queue.submit([number], [10])) for number in range(2)]
    waiting.append(asyncio.create_task(queue.submit([5], [20], wait=True)))
    async with asyncio.timeout(10):
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, Unavailable)
            assert each.reason == "MODEL_FAILED"
        await queue.stop(600)
    assert failed.is_set()
    model.go_on.set()


async def test_a_model_that_is_gone_fails_all_who_wait_and_come_be_there_a_batch_or_not() -> None:
    model = Model()
    async with batcher(model) as made:
        assert await made.submit([1], [1]) == [2]
        model.go_on.clear()
        calls = [asyncio.create_task(made.submit([number], [60])) for number in (1, 2)]
        await until(lambda: len(model.batches) == 2)
        made.fail()
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(ended, Unavailable)
            assert ended.reason == "MODEL_FAILED"
        assert made.failed.is_set()
        with pytest.raises(Unavailable):
            await made.submit([3], [1])
        model.go_on.set()
    async with batcher(Model()) as idle:
        idle.fail()
        with pytest.raises(Unavailable):
            await idle.submit([1], [1])


async def test_calls_are_bounded_too_before_their_inputs_are_read() -> None:
    async with batcher(Model()) as queue:
        queue.admission.calls.capacity = 2
        async with queue.permit("a"), queue.permit("b"):
            with pytest.raises(Unavailable) as caught:
                async with queue.permit("c"):
                    pytest.fail("there was no place")
            assert caught.value.reason == "OVERLOADED"
        assert queue.counts.refused == 1
        assert await queue.submit([1], [1], tenant="c") == [2]


async def test_refusals_tell_how_long_the_queue_takes_to_drain() -> None:
    model = Model()
    now = [0.0]

    def run(batch: Sequence[int]) -> list[int]:
        now[0] += 2.0  # seconds a batch, however large
        return model.run(batch)

    queue: Batcher[int, int] = Batcher(run, Bounds(10, 100), asyncio.Event(), lambda: now[0])
    queue.start()
    await queue.submit([1], [10])
    model.running.clear()
    model.go_on.clear()
    held = [asyncio.create_task(queue.submit([1], [10], tenant=str(number % 2))) for number in range(8)]
    await until(model.running.is_set)
    with pytest.raises(Unavailable) as caught:
        await queue.submit([1], [30])
    assert caught.value.retry_after == pytest.approx(16.0)
    model.go_on.set()
    await asyncio.gather(*held)
    await queue.stop(5)


async def test_a_call_whose_time_is_too_short_is_refused_at_once() -> None:
    model = Model()
    now = [0.0]

    def run(batch: Sequence[int]) -> list[int]:
        now[0] += 2.0
        return model.run(batch)

    queue: Batcher[int, int] = Batcher(run, Bounds(10, 1000), asyncio.Event(), lambda: now[0])
    queue.start()
    assert await queue.submit([1], [10], remaining=1.0) == [2]  # nothing is known yet: no refusal on a guess
    model.running.clear()
    model.go_on.clear()
    held = [asyncio.create_task(queue.submit([1], [10], tenant="flood")) for _ in range(9)]
    await until(model.running.is_set)
    before = len(model.batches)
    for tenant, yields, seconds in (("flood", False, 19.0), ("quiet", False, 3.0), ("quiet", True, 3.0)):
        with pytest.raises(DeadlineExceeded):
            await queue.submit([1], [10], tenant=tenant, yields=yields, remaining=seconds)
    # The quiet tenant's share is every other batch; the flood's own calls are before its next.
    enough = [asyncio.create_task(queue.submit([1], [10], tenant="quiet", remaining=5.0))]
    await asyncio.sleep(0)
    assert len(model.batches) == before
    model.go_on.set()
    await asyncio.gather(*held, *enough)
    assert queue.counts.late == 3
    await queue.stop(5)


async def test_what_is_late_when_its_turn_comes_is_not_run() -> None:
    model = Model()
    now = [0.0]
    queue: Batcher[int, int] = Batcher(model.run, Bounds(10, 1000), asyncio.Event(), lambda: now[0])
    queue.start()
    model.go_on.clear()
    first = asyncio.create_task(queue.submit([1], [10]))
    await until(model.running.is_set)
    late = asyncio.create_task(queue.submit([5], [10], remaining=1.0))
    await asyncio.sleep(0)
    now[0] = 1.5
    model.go_on.set()
    assert await first == [2]
    with pytest.raises(DeadlineExceeded):
        await late
    assert model.batches == [[1]]
    await queue.stop(5)


async def test_one_call_of_another_tenant_passes_a_flood() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model, batch_tokens=40) as queue:
        flood = [asyncio.create_task(queue.submit([number], [10], tenant="flood")) for number in range(100, 160)]
        await until(model.running.is_set)
        quiet = asyncio.create_task(queue.submit([7], [10], tenant="quiet"))
        await asyncio.sleep(0)
        model.go_on.set()
        assert await quiet == [14]
        await asyncio.gather(*flood)
    assert 7 in model.batches[1]


async def test_whoever_leaves_gives_back_what_was_held() -> None:
    model = Model()
    model.go_on.clear()
    async with batcher(model) as queue:
        calls = [asyncio.create_task(queue.submit([number], [10], tenant=str(number))) for number in range(5)]
        await until(model.running.is_set)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (queue.admission.calls.held, queue.admission.tokens.held) == (0, 0)
        model.go_on.set()
        assert await queue.submit([3], [10]) == [6]


async def test_stopping_leaves_no_task_and_no_thread() -> None:
    before = set(threading.enumerate())
    async with batcher(Model()) as queue:
        assert await queue.submit([1], [1]) == [2]
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "model"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
