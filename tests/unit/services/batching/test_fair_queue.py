"""Whose turn it is: a flood of one tenant, or of batch traffic, and what it costs the others. No clock, no thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from services.batching.batch_queue import PATIENCE, BatchQueue
from services.batching.fair_queue import FairQueue


@dataclass(eq=False)
class Waiting:
    """An input."""

    tenant: str
    length: int = 10
    yields: bool = False
    gone: bool = False


def add(line: BatchQueue[Waiting], *entries: Waiting) -> None:
    for entry in entries:
        line.add(entry.tenant, [entry], yields=entry.yields)


def served(line: BatchQueue[Waiting], budget: int, batches: int) -> list[list[Waiting]]:
    return [line.next(budget) for _ in range(batches)]


def batch_of(batches: Sequence[list[Waiting]], entry: Waiting) -> int:
    """In which batch an input ran."""
    return next(number for number, batch in enumerate(batches) if entry in batch)


def test_a_single_call_is_in_the_next_batch_however_many_others_wait() -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    add(line, *(Waiting("flood") for _ in range(10_000)))
    served(line, 100, 5)
    late = Waiting("quiet")
    add(line, late)
    assert batch_of(served(line, 100, 1), late) == 0


def test_one_behind_each_of_others_that_flood() -> None:
    """One input at a time: who comes last waits for at most one of each other tenant."""
    line: BatchQueue[Waiting] = BatchQueue()
    for tenant in ("a", "b", "c"):
        add(line, *(Waiting(tenant) for _ in range(100)))
    served(line, 10, 20)
    late = Waiting("quiet")
    add(line, late)
    assert batch_of(served(line, 10, 4), late) <= 3


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(20, 400))
def test_each_that_waits_gets_an_equal_share_of_tokens(lengths: list[int], budget: int) -> None:
    """Tenants with inputs of different lengths: their shares differ by an input each and a batch, at any time."""
    line: BatchQueue[Waiting] = BatchQueue()
    for number, length in enumerate(lengths):
        line.add(str(number), [Waiting(str(number), length) for _ in range(2000 // length)], yields=False)
    tokens: Counter[str] = Counter({str(number): 0 for number in range(len(lengths))})
    while min(tokens.values()) < 500:
        for entry in line.next(budget):
            tokens[entry.tenant] += entry.length
        assert max(tokens.values()) - min(tokens.values()) <= budget + 2 * max(lengths)


@given(
    st.lists(st.builds(Waiting, st.sampled_from("abc"), st.integers(1, 300), st.booleans()), max_size=120),
    st.integers(1, 1000),
)
def test_every_input_runs_exactly_once(entries: list[Waiting], budget: int) -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    add(line, *entries)
    ran: list[Waiting] = []
    while batch := line.next(budget):
        ran += batch
    assert sorted(map(id, ran)) == sorted(map(id, entries))


def test_who_was_idle_has_saved_nothing_up() -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    add(line, *(Waiting("busy") for _ in range(100)))
    served(line, 10, 50)
    add(line, *(Waiting("rested") for _ in range(50)))
    tenants = [batch[0].tenant for batch in served(line, 10, 20)]
    assert abs(tenants.count("busy") - tenants.count("rested")) <= 1


def test_a_tenant_that_comes_and_goes_gets_no_more_than_one_that_stays() -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    add(line, *(Waiting("stays") for _ in range(100)))
    add(line, Waiting("comes and goes", 50))
    tokens: Counter[str] = Counter()
    for _ in range(40):
        for entry in line.next(50):
            tokens[entry.tenant] += entry.length
            if entry.tenant == "comes and goes":
                add(line, Waiting("comes and goes", 50))
    assert tokens["comes and goes"] <= tokens["stays"] + 50


def test_batch_traffic_lets_others_go_first_and_fills_what_is_free() -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    bulk, asked = Waiting("a", yields=True), Waiting("b")
    add(line, bulk, asked)
    assert line.next(10) == [asked]
    add(line, Waiting("b"))
    assert bulk in line.next(20)


def test_batch_traffic_is_passed_over_eight_times_and_no_more() -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    bulk = Waiting("a", yields=True)
    add(line, bulk, *(Waiting("b") for _ in range(100)))
    assert batch_of(served(line, 10, PATIENCE + 1), bulk) == PATIENCE


def test_long_batch_traffic_has_its_turn_however_short_the_others() -> None:
    """What never fits beside the others is not starved by what does."""
    line: BatchQueue[Waiting] = BatchQueue()
    long = Waiting("a", 400, yields=True)
    add(line, long, *(Waiting("a", 10, yields=True) for _ in range(100)), *(Waiting("b") for _ in range(100)))
    assert batch_of(served(line, 20, PATIENCE + 1), long) == PATIENCE


def test_the_departed_are_neither_run_nor_charged_nor_kept() -> None:
    queue: FairQueue[Waiting] = FairQueue()
    gone = [Waiting("a") for _ in range(1000)]
    stays, other = Waiting("a"), Waiting("b")
    queue.add("a", [*gone, stays])
    queue.add("b", [other])
    for entry in gone:
        entry.gone = True
    queue.withdraw("a", len(gone))
    assert len(queue._flows["a"].entries) == 1
    drawn = queue.draw(10)
    assert drawn == [stays, other]
    queue.settle(drawn, {0, 1})
    assert not queue


def test_a_flood_that_is_cancelled_leaves_nothing_behind() -> None:
    line: BatchQueue[Waiting] = BatchQueue()
    add(line, Waiting("other"))
    for number in range(1000):
        entry = Waiting(f"tenant {number % 10}")
        add(line, entry)
        entry.gone = True
        line.withdraw(entry.tenant, 1, yields=False)
    assert list(line._interactive._flows) == ["other"]
