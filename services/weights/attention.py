"""Attention on a CPU, in large products.

torch's own fuses its steps, for which it multiplies many small blocks, and on a CPU without matrix tiles (AMX) nearly
half of the time of a long input goes there. Here scores are one product, weights oneDNN's softmax of them, and what
comes out another product, each as fast as the CPU multiplies bfloat16. Scores lie in memory for that, so how many there
are at a time is bounded. Encoders attend one group of inputs of like length after the other, prompts a piece.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from services.weights.packing import fitted, native

_STEP: Final = 16
"""Lengths are filled up to multiples of it: oneDNN makes a program for each."""
_MOST: Final = 1 << 19
"""Scores at a time, a mebibyte of them: what a core's own cache holds. More was no faster, and more memory."""
_MANY: Final = 1 << 22
"""The same of a prompt's piece: one layer's tokens are few, so fewer and larger products gain more than the cache."""
_ROWS: Final = 64
"""Queries of a piece are filled up to multiples of it, for the same reason as lengths."""
_FEW: Final = 1 << 16
"""Of fewer scores torch's own attention is the faster."""


class Group(NamedTuple):
    """Some inputs of a batch, [inputs, length] with what fills them up."""

    inputs: int
    length: int
    tokens: Tensor
    """For each place its token, or another one where there is none."""
    mask: Tensor
    """[inputs, length], added to the scores of a key: nothing, or minus infinity."""
    live: Tensor
    """The places that are tokens, in their order."""


def groups(lengths: Sequence[int], heads: int, dtype: torch.dtype) -> Iterator[Group]:
    """Of inputs whose tokens lie one after the other, the shortest first."""
    starts = list(itertools.accumulate(lengths, initial=0))
    begin = 0
    while begin < len(lengths):
        count = _alike(lengths, begin, heads)
        yield _group(starts[begin : begin + count], lengths[begin : begin + count], dtype)
        begin += count


def _alike(lengths: Sequence[int], begin: int, heads: int) -> int:
    """How many of them from there, in ascending order, make a group."""
    end = begin + 1
    while end < len(lengths) and fitted(end + 1 - begin) * heads * _filled(lengths[end]) ** 2 <= _MOST:
        end += 1
    return end - begin


def _filled(length: int) -> int:
    return -(-length // _STEP) * _STEP


def _group(starts: Sequence[int], lengths: Sequence[int], dtype: torch.dtype) -> Group:
    inputs, length = fitted(len(lengths)), _filled(max(lengths))
    more = inputs - len(lengths)
    start, count = torch.tensor([starts, lengths]).unsqueeze(-1)
    places = torch.arange(length)
    live = places < count
    tokens = start + torch.minimum(places, count - 1).clamp_(min=0)
    mask = torch.zeros(inputs, length, dtype=dtype)
    mask[: len(lengths)].masked_fill_(~live, -math.inf)
    return Group(
        inputs,
        length,
        torch.cat([tokens, tokens[-1:].expand(more, length)]).flatten(),
        mask,
        live.flatten().nonzero()[:, 0],
    )


def attention(inputs: Tensor, group: Group, heads: int) -> Tensor:
    """Queries, keys and values of all tokens, [tokens, 3 x dimensions], to what those of a group attend to, one after
    the other, [tokens of the group, dimensions].
    """
    laid = inputs.index_select(0, group.tokens).view(group.inputs, group.length, 3, heads, -1)
    queries, keys, values = laid.permute(2, 0, 3, 1, 4)
    way = _by_products if pays(inputs, group.inputs * heads * group.length**2) else _by_torch
    made = way(queries, keys, values, group.mask)
    return made.transpose(1, 2).reshape(group.inputs * group.length, -1).index_select(0, group.live)


def pays(inputs: Tensor, scores: int) -> bool:
    """Whether products are faster for so many scores of tokens like these."""
    return scores >= _FEW and inputs.dtype is torch.bfloat16 and inputs.device.type == "cpu" and native()


def _by_torch(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None])


def _by_products(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Of [inputs, heads, length, dimensions]; the mask takes part in the first product, as one dimension more."""
    inputs, heads, length, size = queries.shape
    wider = queries.new_ones(inputs, heads, length, size + 1)
    longer = torch.empty_like(wider)
    torch.mul(queries, size**-0.5, out=wider[..., :size])
    longer[..., :size] = keys
    longer[..., size] = mask[:, None]
    part = _part(inputs * heads, length)
    made = _multiplied(wider.flatten(0, 1), longer.flatten(0, 1), values.flatten(0, 1), part)
    return made.view(inputs, heads, length, size)


def _part(heads: int, length: int) -> tuple[int, int]:
    """How many heads and queries at a time, of one size where they can be: oneDNN makes a program for each."""
    rows = min(length, max(1, _MOST // length))
    most = min(heads, max(1, _MOST // (rows * length))) if rows == length else 1
    return next(size for size in range(most, 0, -1) if heads % size == 0), rows


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """What the last of many tokens attend to: queries [heads, count, size] to [heads, length, size] of keys and values.
    All see the first keys; `mask` is added to the scores of the last ones, [count, how many].
    """
    count, rows = queries.shape[1], _rows(queries.shape[1], len(queries) * keys.shape[1])
    more = (0, 0, 0, -count % rows)
    laid, masks = functional.pad(queries * scale, more), functional.pad(mask, more)
    return _multiplied(laid, keys, values, (len(queries), rows), masks)[:, :count]


def _rows(count: int, scores: int) -> int:
    """How many queries at a time, `scores` each."""
    return min(-(-count // _ROWS), max(1, _MANY // (_ROWS * scores))) * _ROWS


def _multiplied(
    queries: Tensor, keys: Tensor, values: Tensor, size: tuple[int, int], mask: Tensor | None = None
) -> Tensor:
    """Of [heads, any, size], so many heads and rows at a time."""
    heads, count = queries.shape[:2]
    keys, made = keys.transpose(1, 2), queries.new_empty(heads, count, values.shape[2])
    for part in itertools.product(_slices(heads, size[0]), _slices(count, size[1])):
        scores = torch.bmm(queries[part], keys[part[0]])
        if mask is not None:
            scores[..., -mask.shape[1] :] += mask[part[1]]
        torch.bmm(scores.to_mkldnn().softmax(-1).to_dense(), values[part[0]], out=made[part])
    return made


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(begin, begin + size) for begin in range(0, count, size))
