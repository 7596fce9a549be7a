"""Encoders of BERT's kind without what they do for nothing.

transformers multiplies the padding of a batch like everything else, and calls forty operators a layer. Here the tokens
of all inputs lie one after the other, padding is there only while they attend to each other, and what follows a product
(bias, GELU, the residual) is done with it (`joined.py`). What comes out is the same, but for rounding, and zero where
there is padding. The idea is Zhai et al., ByteTransformer (IPDPS 2023).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from services.weights.joined import join, joinable, product
from services.weights.packing import fitted

_LAYERS: Final = frozenset({"BertLayer", "RobertaLayer", "XLMRobertaLayer", "CamembertLayer", "ElectraLayer"})


class Layout(NamedTuple):
    """Where the tokens of a batch [rows, length] lie when there is no padding between them."""

    places: Tensor
    """Of each token in the batch, as if that were one row. The last may be there several times: see packing.fitted."""
    tokens: Tensor
    """The reverse: for each place of the batch its token, or another one where there is padding."""
    mask: Tensor | None
    """[rows, 1, 1, length], added to scores: nothing, or minus infinity."""


class UnpaddedEncoder(nn.Module):
    """Stands in for the `encoder` of a BertModel and those like it. Thread-safe."""

    def __init__(self, encoder: Any) -> None:
        """Takes the layers out of `encoder`, one after the other, so that no more than one is there twice."""
        super().__init__()
        self.layers = nn.ModuleList()
        while encoder.layer:
            self.layers.append(_Layer(encoder.layer[0]))
            del encoder.layer[0]

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """[rows, length, dimensions] of the embeddings, and the mask that transformers makes: bool or added to scores,
        [rows, 1, any, length]; None where there is no padding.
        """
        layout, shape = _layout(attention_mask, hidden_states), hidden_states.shape
        states = hidden_states.flatten(0, 1).index_select(0, layout.places)
        for layer in self.layers:
            states = layer(states, shape, layout)
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

    def forward(self, states: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """Tokens [tokens, dimensions] of a batch of `shape`."""
        states = self.attended(self.output.added(self._attend(self.inputs(states), shape, layout), states))
        made: Tensor = self.ended(self.narrow.added(self.wide.gelu(states), states))
        return made

    def _attend(self, inputs: Tensor, shape: torch.Size, layout: Layout) -> Tensor:
        """Queries, keys and values of each token, [tokens, 3 x dimensions], to [tokens, dimensions]."""
        inputs = inputs.index_select(0, layout.tokens)
        queries, keys, values = inputs.view(shape[0], shape[1], 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        made = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=layout.mask)
        return made.transpose(1, 2).reshape(shape[0] * shape[1], -1).index_select(0, layout.places)


def _layout(mask: Tensor | None, states: Tensor) -> Layout:
    """Of embeddings [rows, length, dimensions]."""
    rows, length = states.shape[:2]
    if mask is None:
        places = torch.arange(rows * length)
        return Layout(_filled(places), places, None)
    live = mask[:, 0, 0] if mask.dtype is torch.bool else mask[:, 0, 0] == 0
    places = live.flatten().nonzero()[:, 0]
    tokens = (live.flatten().cumsum(0) - 1).clamp_(min=0)
    added = torch.zeros(rows, 1, 1, length, dtype=states.dtype).masked_fill_(~live[:, None, None], float("-inf"))
    return Layout(_filled(places), tokens, added)


def _filled(places: Tensor) -> Tensor:
    more = fitted(len(places)) - len(places)
    return torch.cat([places, places[-1:].expand(more)]) if more else places


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
