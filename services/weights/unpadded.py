"""Encoders of BERT's kind without what they do for nothing.

transformers multiplies the padding of a batch like everything else, and calls forty operators a layer. Here the tokens
of all inputs lie one after the other, padding is there only while they attend to each other, and what follows a product
(bias, GELU, the residual) is done with it (`joined.py`). What comes out is the same, but for rounding, and zero where
there is padding. The idea is Zhai et al., ByteTransformer (IPDPS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from services.weights.attention import Group, attention, groups
from services.weights.fused_linear import join, joinable, product
from services.weights.packing import fitted

_LAYERS: Final = frozenset({"BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer"})


class Layout(NamedTuple):
    """Where the tokens of a batch [rows, length] lie when there is no padding between them, the shortest row first."""

    places: Tensor
    """Of each token in the batch, as if that were one row. The last may be there several times: see packing.fitted."""
    groups: Sequence[Group]
    """Rows that attend together."""


class UnpaddedEncoder(nn.Module):
    """Stands in for the `encoder` of a BertModel and those like it. Thread-safe."""

    def __init__(self, encoder: Any) -> None:
        """Takes the layers out of `encoder`, one after the other, so that no more than one is there twice."""
        super().__init__()
        self.layers = nn.ModuleList()
        self.heads = encoder.layer[0].attention.self.num_attention_heads
        while encoder.layer:
            self.layers.append(_Layer(encoder.layer[0]))
            del encoder.layer[0]

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """[rows, length, dimensions] of the embeddings, and the mask that transformers makes: bool or added to scores,
        [rows, 1, any, length]; None where there is no padding.
        """
        layout, shape = _layout(attention_mask, hidden_states, self.heads), hidden_states.shape
        states = hidden_states.flatten(0, 1).index_select(0, layout.places)
        for layer in self.layers:
            states = layer(states, layout)
        padded = states.new_zeros(shape[0] * shape[1], shape[2]).index_copy_(0, layout.places, states)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=padded.view(shape))


class _Layer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        own, out = layer.attention.self, layer.attention.output
        self._heads = own.num_attention_heads
        self.inputs = product(join([own.query, own.key, own.value]))
        self.output = product(out.dense)
        self.wide = product(layer.intermediate.dense)
        self.narrow = product(layer.output.dense)
        self.attended = out.LayerNorm
        self.ended = layer.output.LayerNorm

    def forward(self, states: Tensor, layout: Layout) -> Tensor:
        """Tokens [tokens, dimensions]."""
        states = self.attended(self.output.added(self._attend(self.inputs(states), layout), states))
        made: Tensor = self.ended(self.narrow.added(self.wide.gelu(states), states))
        return made

    def _attend(self, inputs: Tensor, layout: Layout) -> Tensor:
        """Queries, keys and values of each token, [tokens, 3 x dimensions], to [tokens, dimensions]."""
        made = [attention(inputs, group, self._heads) for group in layout.groups]
        return made[0] if len(made) == 1 else torch.cat(made)


def _layout(mask: Tensor | None, states: Tensor, heads: int) -> Layout:
    """Of embeddings [rows, length, dimensions]."""
    rows, length = states.shape[:2]
    if mask is None:
        live = torch.ones(rows, length, dtype=torch.bool)
    else:
        live = mask[:, 0, 0] if mask.dtype is torch.bool else mask[:, 0, 0] == 0
    counts, order = live.sum(1).sort()
    row, place = live[order].nonzero(as_tuple=True)
    places = order[row] * length + place
    made = list(groups(counts.tolist(), heads, states.dtype))
    more = fitted(len(places)) - len(places)
    if more:
        made[-1] = made[-1]._replace(live=_filled(made[-1].live, more))
        places = _filled(places, more)
    return Layout(places, made)


def _filled(places: Tensor, more: int) -> Tensor:
    """The last of them so many times more."""
    return torch.cat([places, places[-1:].expand(more)])


def unpad(module: Any) -> bool:
    """Replaces the encoder of a module on the CPU, be there a head on it or not, if it is of BERT's kind."""
    base = module.base_model
    encoder = getattr(base, "encoder", None)
    if encoder is None or not _known(encoder, base.config):
        return False
    base.encoder = UnpaddedEncoder(encoder)
    return True


def _known(encoder: Any, config: Any) -> bool:
    layers = getattr(encoder, "layer", None)
    if not isinstance(layers, nn.ModuleList) or not layers or any(type(e).__name__ not in _LAYERS for e in layers):
        return False
    if config.hidden_act != "gelu" or config.is_decoder or next(encoder.parameters()).device.type != "cpu":
        return False
    if config.output_hidden_states or config.output_attentions:
        return False
    own = [layer.attention.self for layer in cast("Any", layers)]
    return all(joinable([each.query, each.key, each.value]) for each in own)
