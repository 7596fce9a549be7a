"""How the inputs of a batch are put together for a model: padded, or only those of one length at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from services.text.tokens import Tokens

RowT = TypeVar("RowT")
Inputs = dict[str, Tensor]
"""The inputs of a model by name, each [inputs, length]."""

_MIXES: Final = frozenset(
    {"canine", "convbert", "fnet", "funnel", "nystromformer", "reformer", "t5gemma", "t5gemma2", "xlnet", "yoso"}
)
"""Kinds of model whose answer for an input depends on the padding beside it."""
_NO_TOKEN: Final = -1
_TYPES: Final = "token_type_ids"


@dataclass(frozen=True, slots=True)
class Form:
    """The requirements of a model on a batch."""

    pad_id: int = 0
    typed: bool = False
    """Whether it takes token types."""
    alike: bool = False
    """Whether only inputs of one length may run together: the model takes padding for tokens."""
    ending: int | None = None
    """A token of which inputs that run together must have equally many: the model answers at the last one."""

    def parts(self, batch: Sequence[Tokens]) -> list[list[int]]:
        """Places of the inputs that run together."""
        if not self.alike and self.ending is None:
            return [list(range(len(batch)))]
        parts: dict[tuple[int, int], list[int]] = {}
        for place, tokens in enumerate(batch):
            parts.setdefault((tokens.length * self.alike, self._endings(tokens)), []).append(place)
        return list(parts.values())

    def run(
        self, batch: Sequence[Tokens], run: Callable[[Sequence[int], Inputs], Iterable[RowT]], device: torch.device
    ) -> list[RowT]:
        """The output of `run` for each input. `run` gets the indices of inputs that run together, and their tensors."""
        parts = self.parts(batch)
        if len(parts) == 1:
            return list(run(parts[0], padded(batch, self.pad_id, device, typed=self.typed)))
        rows: dict[int, RowT] = {}
        for places in parts:
            inputs = padded([batch[place] for place in places], self.pad_id, device, typed=self.typed)
            rows.update(zip(places, run(places, inputs), strict=True))
        return [rows[place] for place in range(len(batch))]

    def _endings(self, tokens: Tokens) -> int:
        return 0 if self.ending is None else tokens.ids.count(self.ending)


def padded(batch: Sequence[Tokens], pad_id: int, device: torch.device, *, typed: bool) -> Inputs:
    """Token ids and mask, int64 [batch, longest], and token types where the model has them."""
    longest = max(tokens.length for tokens in batch)

    def rows(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*row, *([fill] * (longest - len(row)))] for row in values], device=device)

    inputs = {
        "input_ids": rows([tokens.ids for tokens in batch], pad_id),
        "attention_mask": rows([[1] * tokens.length for tokens in batch], 0),
    }
    if typed:
        inputs["token_type_ids"] = rows([tokens.types for tokens in batch], 0)
    return inputs


def form_of(module: Any, tokeniser: Any, *, labels: bool = False) -> Form:
    """Of a model and its tokeniser, both of transformers. `labels` says that it gives a text labels."""
    config = module.config
    pad_id = _pad_id(config, tokeniser)
    lacks_pad = labels and getattr(config.get_text_config(), "pad_token_id", None) is None
    if lacks_pad:
        # A model that answers at the last token finds it by what pads, and refuses a batch without. None of ours has
        # padding then, so the last token is it, as in a batch of one.
        config.get_text_config().pad_token_id = _NO_TOKEN
    by_end = labels and config.is_encoder_decoder
    return Form(
        pad_id=pad_id,
        typed=_typed(module, tokeniser),
        alike=lacks_pad or config.model_type in _MIXES,
        ending=config.eos_token_id if by_end and isinstance(config.eos_token_id, int) else None,
    )


def _pad_id(config: Any, tokeniser: Any) -> int:
    """The model's own, by which some tell where a text ends; else the tokeniser's."""
    own = getattr(config.get_text_config(), "pad_token_id", None)
    found = own if isinstance(own, int) and own >= 0 else tokeniser.pad_token_id
    return int(found or 0)


def _typed(module: Any, tokeniser: Any) -> bool:
    """Where the model takes types and has several, and its tokeniser makes them, or its kind's own tokeniser would:
    RoBERTa and its kin go by the separators.
    """
    if _TYPES not in inspect.signature(module.forward).parameters or getattr(module.config, "type_vocab_size", 2) < 2:
        return False
    usual = tokenizer_class_from_name(TOKENIZER_MAPPING_NAMES.get(module.config.model_type) or "")
    return _TYPES in tokeniser.model_input_names or _TYPES in getattr(usual, "model_input_names", ())
