"""Beginnings that prompts share: what is found, whose it is, what is dropped, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meshgate.errors import Unavailable
from services.generation.engine.interface import Job
from services.generation.model.prefix_cache import BLOCK, PrefixCache
from tests.support.fixtures.generation import Bench, CountingModel, greedy

ROWS = 4


class Named(NamedTuple):
    """An adapter, as far as it matters here."""

    serial: int

    @property
    def pairs(self) -> Mapping[str, Any]:
        return {}


def job(prompt: Sequence[int], tenant: str = "a", adapter: int | None = None) -> Job:
    return Job(list(prompt), 1, tenant=tenant, adapter=None if adapter is None else Named(adapter))


def text(blocks: int, seed: int = 0, more: int = 1) -> list[int]:
    return [(seed * 7 + place) % 100 + 1 for place in range(blocks * BLOCK + more)]


class Shelf:
    """Prefixes over rows in memory."""

    def __init__(self, blocks: int) -> None:
        self.model = CountingModel(ROWS, 10**6)
        self.prefixes = PrefixCache(self.model, blocks)

    def store(self, asked: Job) -> None:
        self.model.content[0] = list(asked.prompt)
        self.prefixes.store(asked, 0)

    def restore(self, asked: Job) -> int:
        self.model.content[1] = []
        found = self.prefixes.restore(asked, 1)
        assert self.model.content[1] == list(asked.prompt)[:found], "what comes back is what was there"
        return found


def test_the_longest_common_beginning_in_whole_blocks_is_found() -> None:
    shelf = Shelf(100)
    shelf.store(job(text(3)))
    assert shelf.restore(job(text(3))) == 3 * BLOCK
    assert shelf.restore(job([*text(2, more=5), *text(4, 1)])) == 2 * BLOCK
    assert shelf.restore(job(text(1, more=0))) == 0, "one token is left to read"
    assert shelf.restore(job(text(3, 1))) == 0
    assert shelf.restore(job([*text(1, 5, 0), *text(3)])) == 0, "the same block elsewhere is another"


def test_what_two_prompts_share_is_kept_once() -> None:
    shelf = Shelf(100)
    shelf.store(job([*text(3, more=0), *text(1, 5)]))
    shelf.store(job([*text(3, more=0), *text(1, 6)]))
    assert len(shelf.model.kept) == 5


@pytest.mark.parametrize("other", [job(text(3), "b"), job(text(3), ""), job(text(3), adapter=1)])
def test_neither_another_tenant_nor_another_adapter_finds_it(other: Job) -> None:
    shelf = Shelf(100)
    shelf.store(job(text(3)))
    assert shelf.restore(other) == 0
    shelf.store(other)
    assert shelf.restore(other) == (3 * BLOCK if other.tenant else 0), "nor does who is nobody find his own"
    assert shelf.restore(job(text(3))) == 3 * BLOCK


def test_one_tenants_calls_do_not_drive_out_anothers() -> None:
    shelf = Shelf(10)
    shelf.store(job(text(4), "quiet"))
    for seed in range(1, 30):
        shelf.store(job(text(5, seed), "loud"))
    assert shelf.restore(job(text(4), "quiet")) == 4 * BLOCK
    assert shelf.restore(job(text(5, 29), "loud")) == 5 * BLOCK


def test_what_was_used_least_lately_goes_first_and_from_its_end() -> None:
    shelf = Shelf(6)
    shelf.store(job(text(3, 1)))
    shelf.store(job(text(3, 2)))
    shelf.restore(job(text(3, 1)))
    shelf.store(job(text(1, 3)))
    assert [shelf.restore(job(text(3, seed))) // BLOCK for seed in (1, 2)] == [3, 2]


def test_a_prompt_larger_than_the_room_keeps_its_beginning() -> None:
    shelf = Shelf(4)
    shelf.store(job(text(2, 5)))
    shelf.store(job(text(9)))
    assert shelf.restore(job(text(9))) == 4 * BLOCK


@settings(deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.lists(st.integers(0, 2), max_size=5), st.sampled_from("ab"), st.none() | st.integers(0, 1)),
        max_size=30,
    ),
    room=st.integers(1, 8),
)
def test_no_more_than_there_is_room_for_and_nothing_false(
    asked: list[tuple[list[int], str, int | None]], room: int
) -> None:
    shelf = Shelf(room)
    for parts, tenant, adapter in asked:
        one = job([token for part in parts for token in [part + 1] * BLOCK] + [9], tenant, adapter)
        shelf.restore(one)
        shelf.store(one)
        assert len(shelf.model.kept) <= room
        assert sum(map(len, shelf.prefixes._of.values())) + len(shelf.prefixes._free) == room


# In the engine


def ask(bench: Bench, prompt: Sequence[int], tenant: str = "a") -> int:
    """How many tokens of the prompt were known."""
    request, heard = bench.add(greedy(prompt, 3, tenant=tenant))
    bench.run()
    assert heard.tokens[0] == [prompt[-1] + 1, prompt[-1] + 2, prompt[-1] + 3]
    return request.cached


def test_a_prompt_is_read_from_where_another_ended() -> None:
    bench = Bench(rows=2, context=500, prefix_blocks=20)
    assert ask(bench, text(2, more=3)) == 0
    assert ask(bench, text(2, more=9)) == 2 * BLOCK
    assert [len(piece) for piece in bench.model.reads] == [64, 3, 9]
    assert ask(bench, text(2, more=9), tenant="b") == 0
    assert bench.model.batches[-1] == [[*text(2, more=9), text(2, more=9)[-1] + 1, text(2, more=9)[-1] + 2]]


def test_without_room_nothing_is_kept() -> None:
    bench = Bench(rows=2, context=500)
    ask(bench, text(2))
    assert ask(bench, text(2)) == 0
    assert bench.model.kept == {}


def test_what_is_known_costs_its_tenant_nothing() -> None:
    bench = Bench(rows=2, context=500, prefix_blocks=20)
    ask(bench, text(2))
    before = bench.scheduler._queue.served("a")
    ask(bench, text(2))
    assert bench.scheduler._queue.served("a") == before + 1 + 3


@pytest.mark.parametrize("command", ["store", "restore"])
def test_where_there_is_no_memory_for_it_prompts_are_read_and_nobody_fails(command: str) -> None:
    bench = Bench(rows=2, context=500, prefix_blocks=20)
    ask(bench, text(2))

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    setattr(bench.model, command, fail)
    ask(bench, text(3, 1 if command == "store" else 0))
    delattr(bench.model, command)
    assert ask(bench, text(1)) == (0 if command == "store" else BLOCK)


def test_a_step_without_memory_gives_up_what_is_kept_first() -> None:
    bench = Bench(rows=2, context=500, prefix_blocks=20)
    ask(bench, text(2))
    bench.add(greedy("a", 9, tenant="a"))
    bench.scheduler.step()
    bench.model.most_places = 1
    bench.scheduler.step()
    assert bench.model.kept == {}


def test_a_prompt_after_which_there_are_no_numbers_is_not_kept() -> None:
    bench = Bench(rows=2, context=500, prefix_blocks=20)
    _, heard = bench.add(greedy([*text(1, more=0), 127], tenant="a"))
    bench.run()
    assert heard.error is not None
    assert not isinstance(heard.error, Unavailable)
    assert bench.model.kept == {}
