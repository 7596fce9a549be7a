"""Inputs in groups attend to what each would by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from services.weights import attention, packing
from services.weights.attention import Group, causal_attention, groups
from services.weights.attention import attention as run_attention

HEADS, SIZE = 3, 8
DIMENSIONS = HEADS * SIZE

needs_native = pytest.mark.skipif(not packing.native(), reason="this CPU does not multiply bfloat16")


def alone(inputs: Tensor) -> Tensor:
    """What the tokens of one input attend to, [tokens, dimensions], as torch says in float32."""
    queries, keys, values = inputs.float().view(len(inputs), 3, HEADS, SIZE).permute(1, 2, 0, 3)
    made = functional.scaled_dot_product_attention(queries, keys, values)
    return made.transpose(0, 1).reshape(len(inputs), DIMENSIONS)


def together(inputs: Tensor, lengths: Sequence[int]) -> Tensor:
    return torch.cat([run_attention(inputs, group, HEADS) for group in groups(lengths, HEADS, inputs.dtype)])


def drawn(lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
    torch.manual_seed(7)
    return torch.randn(sum(lengths), 3 * DIMENSIONS).to(dtype)


def worst(lengths: Sequence[int], dtype: torch.dtype) -> float:
    inputs = drawn(lengths, dtype)
    expected = torch.cat([alone(each) for each in torch.split(inputs, list(lengths))])
    return float((together(inputs, lengths).float() - expected).abs().max())


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """By which way each group went."""
    gone: list[str] = []

    def noted(name: str, way: Any) -> Any:
        def going(*args: Any) -> Any:
            gone.append(name)
            return way(*args)

        return going

    for name in ("_by_torch", "_by_products"):
        monkeypatch.setattr(attention, name, noted(name, getattr(attention, name)))
    return gone


LENGTHS = [[1], [5, 9], [1, 1, 2, 16, 17, 30], [3] * 20, [200, 250]]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_in_float32_it_is_torchs(lengths: list[int], ways: list[str]) -> None:
    assert worst(lengths, torch.float32) < 1e-5
    assert set(ways) == {"_by_torch"}


@needs_native
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("most", [1 << 19, 5000, 1], ids=["whole", "parts", "one head at a time"])
def test_by_products_it_is_the_same_but_for_rounding(
    lengths: list[int], most: int, monkeypatch: pytest.MonkeyPatch, ways: list[str]
) -> None:
    monkeypatch.setattr(attention, "_FEW", 0)
    monkeypatch.setattr(attention, "_MOST", most)
    assert worst(lengths, torch.bfloat16) < 0.04
    assert set(ways) == {"_by_products"}


@needs_native
def test_few_scores_go_torchs_way(ways: list[str]) -> None:
    assert worst([20], torch.bfloat16) < 0.04
    assert worst([150, 200], torch.bfloat16) < 0.04
    assert ways == ["_by_torch", "_by_products"]


@needs_native
@pytest.mark.parametrize("many", [1 << 22, 1], ids=["whole", "in parts"])
@pytest.mark.parametrize(("count", "length"), [(30, 30), (64, 64), (150, 290)], ids=["few", "even", "later"])
def test_the_last_tokens_look_back(many: int, count: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_MANY", many)
    torch.manual_seed(8)
    queries = torch.randn(HEADS, count, SIZE).bfloat16()
    keys, values = torch.randn(2, HEADS, length + 5, SIZE).bfloat16()[:, :, :length]  # a part of what is there
    seen = torch.ones(count, length, dtype=torch.bool).tril(length - count)
    mask = torch.zeros(count, count).masked_fill_(~seen[:, -count:], float("-inf")).bfloat16()
    made = causal_attention(queries, keys, values, mask, SIZE**-0.5)
    expected = functional.scaled_dot_product_attention(queries.float(), keys.float(), values.float(), attn_mask=seen)
    assert (made.float() - expected).abs().max() < 0.04


@needs_native
def test_scores_that_are_far_apart_stay_finite() -> None:
    inputs = drawn([90, 160], torch.bfloat16) * 40
    assert together(inputs, [90, 160]).isfinite().all()


@given(st.lists(st.integers(1, 700), min_size=1, max_size=60).map(sorted))
def test_each_token_is_in_one_group_in_order_and_no_group_is_too_large(lengths: list[int]) -> None:
    begin, seen = 0, list[int]()
    for group in groups(lengths, HEADS, torch.float32):
        tokens = group.tokens[group.live].tolist()
        assert tokens == list(range(begin, begin + len(tokens)))
        begin += len(tokens)
        seen += lengths_of(group)
    assert seen == lengths


def lengths_of(group: Group) -> list[int]:
    """Of the inputs of a group, which is no larger than it may be, by its mask and by its places."""
    live = torch.zeros(group.inputs * group.length, dtype=torch.bool)
    live[group.live] = True
    counts: list[int] = [count for count in live.view(group.inputs, group.length).sum(1).tolist() if count]
    assert ((group.mask == 0).view(-1)[group.live]).all()
    assert (group.mask[: len(counts)] == 0).sum(1).tolist() == counts
    assert len(counts) == 1 or group.inputs * HEADS * group.length**2 <= attention._MOST
    assert group.length % 16 == 0
    return counts
