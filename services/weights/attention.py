"""Attention of encoders on a CPU, one group of inputs of like length after the other.

torch's own fuses its steps, for which it multiplies many small blocks, and on a CPU without matrix tiles (AMX) nearly
half of the time of a long input goes there. Here a group's scores are one product, a softmax of oneDNN's, and one
product, each as fast as the CPU multiplies bfloat16. They lie in memory for that, so a group has no more of them than
its caches hold, and inputs that have more by themselves go torch's way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from services.weights.packing import fitted, native

_STEP: Final = 16
"""Lengths are filled up to multiples of it: oneDNN makes a program for each."""
_MOST: Final = 1 << 19
"""Scores at a time, a mebibyte of them: what a core's own cache holds. More was no faster, and more memory."""
_LONGEST: Final = 2048
"""Inputs that are longer go torch's way, which needs no memory for scores."""
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
    starts = list(accumulate(lengths, initial=0))
    begin = 0
    while begin < len(lengths):
        count = _alike(lengths[begin:], heads)
        yield _group(starts[begin : begin + count], lengths[begin : begin + count], dtype)
        begin += count


def _alike(lengths: Sequence[int], heads: int) -> int:
    """How many of them, in ascending order, make a group."""
    count = 1
    while count < len(lengths) and fitted(count + 1) * heads * _filled(lengths[count]) ** 2 <= _MOST:
        count += 1
    return count


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


def attended(inputs: Tensor, group: Group, heads: int) -> Tensor:
    """Queries, keys and values of all tokens, [tokens, 3 x dimensions], to what those of a group attend to, one after
    the other, [tokens of the group, dimensions].
    """
    laid = inputs.index_select(0, group.tokens).view(group.inputs, group.length, 3, heads, -1)
    queries, keys, values = laid.permute(2, 0, 3, 1, 4)
    way = _by_products if _pays(inputs, group, heads) else _by_torch
    made = way(queries, keys, values, group.mask)
    return made.transpose(1, 2).reshape(group.inputs * group.length, -1).index_select(0, group.live)


def _pays(inputs: Tensor, group: Group, heads: int) -> bool:
    if inputs.dtype is not torch.bfloat16 or group.length > _LONGEST or not native():
        return False
    return group.inputs * heads * group.length**2 >= _FEW


def _by_torch(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None])


def _by_products(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Of [inputs, heads, length, dimensions]; the mask takes part in the first product, as one dimension more."""
    *shape, size = queries.shape
    wider, longer = queries.new_ones(*shape, size + 1), queries.new_empty(*shape, size + 1)
    torch.mul(queries, size**-0.5, out=wider[..., :size])
    longer[..., :size] = keys
    longer[..., size] = mask[:, None]
    wider, longer, values = wider.flatten(0, 1), longer.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)
    made = torch.empty_like(values)
    for part in _parts(len(values), shape[-1]):
        weights = torch.bmm(wider[part], longer[part]).to_mkldnn().softmax(-1).to_dense()
        torch.bmm(weights, values[part], out=made[part])
    return made.view(*shape, size)


def _parts(count: int, length: int) -> Iterator[slice]:
    """Parts of `count` heads, of one size where they can be: oneDNN makes a program for each."""
    most = max(1, _MOST // length**2)
    size = next(size for size in range(min(count, most), 0, -1) if count % size == 0)
    return (slice(begin, begin + size) for begin in range(0, count, size))
