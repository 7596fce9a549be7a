"""Memory that ends: who makes room, who goes on, and when it is the model that is broken."""

from __future__ import annotations

import pytest
import torch

from meshgate.errors import Unavailable
from services.generation.engine.interface import Job, Priority
from services.generation.scheduler.row_limit import RECOVERY_STEPS, RowLimit
from tests.support.fixtures.generation import BROKEN, Bench, Heard, greedy

LETTERS = "bcdefghijklmnopqrstuvwxyz"


def told_to_come_back(heard: Heard) -> bool:
    error = heard.error
    return isinstance(error, Unavailable) and error.reason == "OVERLOADED" and bool(error.retry_after)


def start(bench: Bench, *jobs: Job) -> list[Heard]:
    heard = [bench.add(job)[1] for job in jobs]
    bench.scheduler.step()
    return heard


def test_a_step_without_memory_ends_one_call_and_the_others_go_on() -> None:
    bench = Bench(rows=3)
    first, second, third = start(bench, *[greedy("a", 20)] * 3)
    bench.model.most_places = 20
    bench.run()
    assert told_to_come_back(third)
    assert third.tokens[0], "what it had made was heard"
    assert "secret" not in str(third.error)
    assert told_to_come_back(second), "one alone reaches 20 places"
    assert first.text[0] == LETTERS[:20]


def test_no_more_rows_run_than_fitted_until_it_went_well_for_long() -> None:
    bench = Bench(rows=4, context=10**6)
    bench.model.stride = 0
    start(bench, *[greedy("a", 10**6, tenant=str(number)) for number in range(4)])
    bench.model.most_places = 11
    bench.scheduler.step()
    bench.scheduler.step()
    bench.model.most_places = 10**9
    bench.add(greedy("a", 10**6))
    for _ in range(RECOVERY_STEPS + 1):
        bench.scheduler.step()
    assert [len(batch) for batch in bench.model.batches] == [4] + [3] * RECOVERY_STEPS + [4]


def test_batch_traffic_makes_room_first_then_whoever_has_most_then_the_newest() -> None:
    jobs = {
        "old": greedy("a", 30, tenant="x"),
        "batch": greedy("a", 30, tenant="x", priority=Priority.BATCH),
        "many": greedy("a", 30, tenant="y"),
        "more": greedy("a", 30, tenant="y"),
    }
    bench = Bench(rows=4)
    heard = dict(zip(jobs, start(bench, *jobs.values()), strict=True))
    ended: list[str] = []
    for name, one in heard.items():
        one.failed = lambda _, name=name: ended.append(name)  # type: ignore[misc, method-assign]
    bench.model.most_places = 0
    for _ in heard:
        bench.scheduler.step()
    assert ended == ["batch", "more", "many", "old"]


def test_all_candidates_of_a_call_end_those_that_wait_too() -> None:
    bench = Bench(rows=2)
    (many,) = start(bench, greedy("ab", 9, candidates=5))
    bench.model.most_places = 3
    bench.run()
    assert told_to_come_back(many)
    assert bench.scheduler.idle()


def test_the_cache_shrinks_to_who_is_left() -> None:
    bench = Bench(rows=2)
    _, _ = start(bench, greedy("abc", 30), greedy("x" * 9, 30))
    bench.model.most_places = 10
    bench.scheduler.step()
    assert bench.model.shrunk == [3]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("x"), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]
)
def test_a_prompt_without_memory_ends_alone_and_may_come_again(error: Exception) -> None:
    bench = Bench()
    (other,) = start(bench, greedy("a", 9))
    bench.model.read_fault = error
    (large,) = start(bench, greedy("b"))
    bench.model.read_fault = None
    bench.run()
    assert told_to_come_back(large)
    assert other.text[0] == LETTERS[:9]
    assert bench.model.shrunk == [2], "what growth there was is given back"


def test_prompts_without_memory_are_counted_and_end_no_model_that_can_read_another() -> None:
    row_limit = RowLimit(4)
    bench = Bench(row_limit=row_limit)
    bench.model.most_places = 5
    heard = [bench.add(greedy("x" * 9))[1] for _ in range(20)]
    _, small = bench.add(greedy("a", 2))
    bench.run()
    assert all(map(told_to_come_back, heard))
    assert small.text[0] == "bc"
    assert row_limit.shed == 20


def test_prompts_that_can_not_be_read_end_no_model_that_can_read_another() -> None:
    bench = Bench()
    heard = [bench.add(greedy([BROKEN]))[1] for _ in range(20)]
    bench.run()
    assert all(one.error is not None for one in heard)


def test_a_model_without_memory_for_anything_is_broken() -> None:
    bench = Bench()
    bench.model.read_fault = torch.OutOfMemoryError("x")
    heard = [bench.add(greedy("a"))[1] for _ in range(5)]
    with pytest.raises(torch.OutOfMemoryError):
        bench.run()
    assert [told_to_come_back(one) for one in heard] == [True] * 3 + [False] * 2


def test_an_error_of_the_accelerator_is_the_end() -> None:
    bench = Bench()
    bench.model.read_fault = torch.AcceleratorError("x")
    bench.add(greedy("a"))
    with pytest.raises(torch.AcceleratorError):
        bench.run()
