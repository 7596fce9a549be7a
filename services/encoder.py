"""A transformer encoder on its device: batches of token ids in, pooled vectors out. Thread-safe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from services.models.config import SourceConfig
from services.pooling import Pooling
from services.sharing import Sharing, threads_of
from services.tokens import Cut, Tokeniser, Tokens
from services.weights import opening, quality
from services.weights.opening import Weights, Where
from services.weights.quality import Yardstick


class Encoder:
    """An encoder and its number format."""

    def __init__(self, module: Any, pad_id: int, weights: Weights | None = None) -> None:
        self.dimensions = int(module.config.hidden_size)
        self.dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
        self.weights = weights or Weights()
        self._module = module
        self._device = next(module.parameters()).device
        self.device = self._device.type
        self._pad_id = pad_id
        self.threads = threads_of(self._device)
        self._sharing = Sharing(self.threads, serial=self.weights.serial)
        self._typed = getattr(module.config, "type_vocab_size", 0) > 1

    @torch.inference_mode()
    def pooled(self, batch: Sequence[Tokens], pooling: Sequence[Pooling]) -> Tensor:
        """Vectors float32 [batch, dimensions] on the CPU, row i pooled as pooling[i] says."""
        inputs = padded(batch, self._pad_id, self._device, typed=self._typed)
        with self._sharing.batch(inputs["input_ids"].numel()):
            states = self._module(**inputs).last_hidden_state.float()
        return _pool(states, inputs["attention_mask"], pooling).cpu()


def padded(batch: Sequence[Tokens], pad_id: int, device: torch.device, *, typed: bool) -> dict[str, Tensor]:
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


def _pool(states: Tensor, mask: Tensor, pooling: Sequence[Pooling]) -> Tensor:
    """States [batch, length, dimensions] to vectors [batch, dimensions]."""
    kinds = set(pooling)
    if len(kinds) == 1:
        return _pool_as(states, mask, kinds.pop())
    made = {kind: _pool_as(states, mask, kind) for kind in kinds}
    return torch.stack([made[kind][row] for row, kind in enumerate(pooling)])


def _pool_as(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    if pooling is Pooling.CLS:
        return states[:, 0]
    if pooling is Pooling.LAST:
        return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


def load_encoder(
    settings: SourceConfig, key: str, directory: Path, where: Where, tokeniser: Tokeniser, pad_id: int
) -> Encoder:
    """Loads the weights of a directory (see services.models.source). Raises ConfigError, OSError, ValueError,
    SafetensorError or RuntimeError when it can't.
    """
    safe = None if settings.allow_pickle else True
    load = partial(AutoModel.from_pretrained, directory, dtype=where.dtype, use_safetensors=safe)

    def answer(module: Any) -> Tensor:
        batch = sample(tokeniser)
        return Encoder(module, pad_id).pooled(batch, [Pooling.MEAN] * len(batch))

    module, weights = opening.opened(
        settings, key, where, load, [directory], Yardstick(answer, quality.cosine, tokeniser.max_tokens)
    )
    return Encoder(module, pad_id, weights)


def sample(tokeniser: Tokeniser) -> list[Tokens]:
    """The texts that quality is measured by, read, and cut where they are too long."""
    return tokeniser.read(quality.texts(), Cut.END, "texts")


def first_lengths(most: int, *, compiled: bool) -> list[list[int]]:
    """Batches to run before callers come, by the lengths of their inputs: a short and a long one, so that no caller
    pays for first-time allocations. What is compiled is compiled apart for one input and for several.
    """
    return [[4], [most], *([[4, 6], [most, 6, 4]] if compiled else [])]
