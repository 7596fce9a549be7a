"""The decoders of the architectures that are served, run over rows of different lengths.

transformers' own forward takes one position for a whole batch. So what depends on positions is done here, for each row,
and the layers, which know of positions only what they are told, are run as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor


class Pass(NamedTuple):
    """One forward pass over `n` rows, of `q` tokens each."""

    tokens: Tensor
    """int64 [n, q]."""
    positions: Tensor
    """Where each stands in its row, int64 [n, q]."""
    own: Tensor
    """True where a token may look at its row, [n, 1, q, places]."""
    cross: Tensor
    """True where it may look at its row's input, [n, 1, 1, input places]."""
    encoded: Tensor
    """What the encoder made of the input where the pass reads it, [n, input places, dimensions]; else not looked at."""
    cache: Any
    """A RowCache that expects the pass."""


class Decoder(Protocol):
    """A decoder and what follows it."""

    def __call__(self, run: Pass) -> Tensor:
        """The scores after each row's last token, [n, vocabulary]."""


class T5Decoder:
    """T5 and mT5: what a token makes of another depends on how far before it that stands, by a learned table."""

    def __init__(self, module: Any, places: int) -> None:
        """For rows of at most `places` tokens."""
        self._stack = module.decoder
        self._head = module.lm_head
        scaled = getattr(module.config, "scale_decoder_outputs", False)  # which mT5 never does, nor says
        self._scale = module.config.d_model**-0.5 if scaled else 1.0
        attention = self._stack.block[0].layer[0].SelfAttention
        last = attention.compute_bias(1, places, past_seen_tokens=places - 1)
        self._by_distance: Tensor = last[0, :, 0].flip(-1)
        """[heads, places]."""
        self._no_bias = last.new_zeros(1, 1, 1, 1)
        self._places = torch.arange(places, device=last.device)

    def __call__(self, run: Pass) -> Tensor:
        """See Decoder."""
        bias = self._bias(run.positions, run.own.shape[-1])
        hidden = self._stack.embed_tokens(run.tokens)
        for block in self._stack.block:
            hidden, _, _ = block(
                hidden, run.own, bias, run.encoded, run.cross, self._no_bias, past_key_values=run.cache
            )
        logits: Tensor = self._head(self._stack.final_layer_norm(hidden[:, -1]) * self._scale)
        return logits

    def _bias(self, positions: Tensor, places: int) -> Tensor:
        """[n, heads, q, places]. Places after a token have some bias or other: they are masked."""
        distances = (positions[..., None] - self._places[:places]).clamp(min=0)
        return self._by_distance[:, distances].transpose(0, 1)


class MarianDecoder:
    """Marian: each place has a vector of sines that is added to the token there."""

    def __init__(self, module: Any, places: int) -> None:
        """`places` are no more than the table of sines has."""
        self._stack = module.get_decoder()
        self._head = module.lm_head
        self._head_bias = module.final_logits_bias

    def __call__(self, run: Pass) -> Tensor:
        """See Decoder."""
        stack = self._stack
        sines = stack.embed_positions(run.tokens.shape, position_ids=run.positions)
        hidden = stack.embed_tokens(run.tokens) * stack.embed_scale + sines
        for layer in stack.layers:
            hidden = layer(hidden, run.own, run.encoded, encoder_attention_mask=run.cross, past_key_values=run.cache)
        logits: Tensor = self._head(hidden[:, -1]) + self._head_bias[0]
        return logits


DECODERS: Final[Mapping[str, Callable[[Any, int], Decoder]]] = {
    "t5": T5Decoder,
    "mt5": T5Decoder,
    "marian": MarianDecoder,
}
"""By `model_type` of a checkpoint's configuration."""
