"""The cache of keys and values: where each position goes, and what memory that ends half way leaves behind."""

from __future__ import annotations

import pytest
import torch

from services.generation.model.kv_cache import SlotCache

LAYERS, HEADS, SIZE = 3, 2, 4


def read(cache: SlotCache, row: int, start: int, states: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Puts the same keys into every layer, and their negatives as values."""
    assert cache.read_into(row, start, states.shape[2]) == start + states.shape[2]
    return [cache.update(states, -states, layer) for layer in range(LAYERS)]


def step(cache: SlotCache, lengths: list[int], states: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    cache.advance(torch.tensor(lengths))
    return [cache.update(states, -states, layer) for layer in range(LAYERS)]


class Starved(SlotCache):
    """A cache whose device has memory for so many tensors more."""

    left = 10**9

    def _allocate(self, like: torch.Tensor, capacity: int) -> torch.Tensor:
        if not self.left:
            raise torch.OutOfMemoryError("none left")
        self.left -= 1
        return super()._allocate(like, capacity)


@pytest.mark.parametrize("left", range(2 * LAYERS))
def test_growth_that_fails_half_way_leaves_the_rows_whole(left: int) -> None:
    cache = Starved(rows=3, context=2048)
    first, second = torch.randn(2, HEADS, 1, SIZE), torch.randn(2, HEADS, 1, SIZE)
    step(cache, [0, 0], first)
    cache.left = left
    with pytest.raises(torch.OutOfMemoryError):
        read(cache, 2, 0, torch.randn(1, HEADS, 300, SIZE))
    for keys, values in step(cache, [1, 1], second):
        assert torch.equal(keys, torch.cat([first, second], 2))
        assert torch.equal(values, -keys)


@pytest.mark.parametrize("left", range(2 * LAYERS))
def test_a_cache_that_could_not_begin_begins_later(left: int) -> None:
    cache = Starved(rows=2, context=64)
    states = torch.randn(1, HEADS, 5, SIZE)
    cache.left = left
    with pytest.raises(torch.OutOfMemoryError):
        read(cache, 0, 0, states)
    cache.left = 2 * LAYERS
    for keys, values in read(cache, 0, 0, states):
        assert torch.equal(keys, states)
        assert torch.equal(values, -states)


def test_the_cache_grows_and_keeps_what_it_had() -> None:
    cache = SlotCache(rows=2, context=1000)
    early, late = torch.randn(1, HEADS, 200, SIZE), torch.randn(1, HEADS, 700, SIZE)
    read(cache, 1, 0, early)
    for keys, values in read(cache, 1, 200, late):
        assert torch.equal(keys, torch.cat([early, late], 2))
        assert torch.equal(values, -keys)


def test_what_no_row_needs_is_given_back_as_far_as_memory_lets_it() -> None:
    cache = Starved(rows=2, context=1000)
    states = torch.randn(1, HEADS, 700, SIZE)
    read(cache, 0, 0, states)
    cache.left = 1
    with pytest.raises(torch.OutOfMemoryError):
        cache.shrink(200)
    cache.left = 10**9
    cache.shrink(200)
    assert {layer.shape[2] for layer in (*cache._keys, *cache._values)} == {256}
    for keys, values in read(cache, 0, 200, states[:, :, 200:]):
        assert torch.equal(keys, states)
        assert torch.equal(values, -states)


@pytest.mark.parametrize(
    ("start", "count", "shown"), [(0, 5, 128), (0, 128, 128), (100, 29, 256), (300, 1, 384), (640, 60, 700)]
)
def test_few_different_numbers_of_positions_are_shown(start: int, count: int, shown: int) -> None:
    cache = SlotCache(rows=2, context=700)
    assert cache.read_into(0, start, count, 128) == shown
    assert cache.get_seq_length() == shown
    for keys in cache.update(*torch.randn(2, 1, HEADS, count, SIZE), 0):
        assert keys.shape == (1, HEADS, shown, SIZE)
        assert not keys[:, :, start + count :].any()


def test_a_step_writes_each_row_at_its_own_place() -> None:
    cache = SlotCache(rows=3, context=16)
    states = torch.randn(3, HEADS, 1, SIZE)
    for keys, _ in step(cache, [0, 5, 2], states):
        assert keys.shape == (3, HEADS, 6, SIZE)
        for row, place in enumerate((0, 5, 2)):
            assert torch.equal(keys[row, :, place], states[row, :, 0])
        assert int(keys.count_nonzero()) == states.numel()


def test_what_is_kept_comes_back_in_another_row_whatever_became_of_the_first() -> None:
    cache = SlotCache(rows=2, context=1000)
    states = torch.randn(1, HEADS, 300, SIZE)
    read(cache, 0, 0, states)
    for slot, start in enumerate((0, 100, 200)):
        cache.store(slot, 0, start, 100)
    read(cache, 0, 0, torch.zeros_like(states))
    cache.shrink(0)
    for slot, start in enumerate((0, 100, 200)):
        cache.restore(slot, 1, start)
    last = torch.randn(1, HEADS, 1, SIZE)
    for keys, values in read(cache, 1, 300, last):
        assert torch.equal(keys, torch.cat([states, last], 2))
        assert torch.equal(values, -keys)
    assert cache.position_bytes == 2 * LAYERS * HEADS * SIZE * 4
    cache.forget()
    with pytest.raises(KeyError):
        cache.restore(0, 1, 0)
