"""A transformer encoder on its device: batches of token ids in, pooled vectors out. Thread-safe."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from services.cpu import cpu_share
from services.cpu.cpu_share import CpuShare, threads_of
from services.encoders import encoder_kinds
from services.encoders.inputs import Form, Inputs
from services.encoders.parity import Parity
from services.encoders.pooling import Pooling
from services.models.config import SourceConfig
from services.text.tokens import Cut, Tokeniser, Tokens
from services.weights import load_weights, quality
from services.weights.completeness import complete
from services.weights.load_weights import Load, Weights, Where
from services.weights.quality import QualityProbe


class Encoder:
    """An encoder and its number format."""

    def __init__(
        self, module: Any, form: Form | int, weights: Weights | None = None, dimensions: int | None = None
    ) -> None:
        """`form` is that of the batches, or the token that pads alone; `dimensions` are a vector's, if not those that
        the configuration says.
        """
        self.dimensions = int(dimensions or module.config.get_text_config().hidden_size)
        self.dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
        self.weights = weights or Weights()
        self._module = module
        self._device = next(module.parameters()).device
        self.device = self._device.type
        self._form = Form(form) if isinstance(form, int) else form
        self.threads = threads_of(self._device)
        self._sharing = CpuShare(self.threads, serial=self.weights.serial)

    @torch.inference_mode()
    def pooled(self, batch: Sequence[Tokens], pooling: Sequence[Pooling]) -> Tensor:
        """Vectors float32 [batch, dimensions] on the CPU, row i pooled as pooling[i] says."""

        def run(places: Sequence[int], inputs: Inputs) -> Tensor:
            return _pool(self._states(inputs), inputs["attention_mask"], [pooling[place] for place in places])

        return torch.stack(self._form.run(batch, run, self._device)).cpu()

    @torch.inference_mode()
    def states(self, batch: Sequence[Tokens]) -> list[Tensor]:
        """The hidden state of each token of each input, float32 [tokens, dimensions]."""

        def run(_: Sequence[int], inputs: Inputs) -> Tensor:
            return self._states(inputs)

        made = self._form.run(batch, run, self._device)
        return [each[: tokens.length].cpu() for each, tokens in zip(made, batch, strict=True)]

    def _states(self, inputs: Inputs) -> Tensor:
        with self._sharing.batch(inputs["input_ids"].numel()):
            states: Tensor = self._module(**inputs).last_hidden_state.float()
        return states


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
    dead = (mask == 0).unsqueeze(-1)
    if pooling is Pooling.MAX:
        return states.masked_fill(dead, -torch.inf).amax(1)
    return _summed(states.masked_fill(dead, 0), mask, pooling)


def _summed(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """`states` are zero where there is padding: what a model has there may be no number."""
    weight = mask.to(states.dtype)
    if pooling is Pooling.WEIGHTED:
        weight = weight * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    total = weight.sum(1, keepdim=True)
    return (states * weight.unsqueeze(-1)).sum(1) / (total.sqrt() if pooling is Pooling.SQRT else total)


def load_encoder(
    settings: SourceConfig, key: str, directory: Path, where: Where, tokeniser: Any, reader: Tokeniser
) -> Encoder:
    """Loads the weights of a directory (see services.models.source); `tokeniser` is transformers' own. Raises
    ConfigError, and whatever transformers raises.
    """
    parity = Parity(key, directory, tokeniser, reader, lambda module, form, batch: Encoder(module, form).states(batch))
    load = _loading(settings, key, directory, where)

    @cpu_share.side_by_side()
    def answer(module: Any) -> Tensor:
        batch = sample(reader)
        return Encoder(module, parity.form).pooled(batch, [Pooling.MEAN] * len(batch))

    yardstick = QualityProbe(answer, quality.cosine, reader.max_tokens)
    module, weights = load_weights.load_weights(
        settings, key, where, parity.around(load, where), [directory], yardstick
    )
    if not (weights.quantisation or settings.compile):
        parity.check(module)
    return Encoder(module, parity.form, weights, parity.size)


def _loading(settings: SourceConfig, key: str, directory: Path, where: Where) -> Load:
    config = AutoConfig.from_pretrained(directory)
    kind, safe = encoder_kinds.encoder(config, key), None if settings.allow_pickle else True
    load = partial(kind.from_pretrained, directory, config=config, dtype=where.dtype, use_safetensors=safe)
    return complete(load, key, directory, encoder_kinds.unused(config))


def sample(tokeniser: Tokeniser) -> list[Tokens]:
    """The texts that quality is measured by, read, and cut where they are too long."""
    return tokeniser.read(quality.texts(), Cut.END, "texts")


def first_batches(reader: Tokeniser, *, compiled: bool) -> list[list[Tokens]]:
    """Batches to run before callers come: a short and a long input, so that no caller pays for first-time allocations.
    A compiled model is compiled separately for one input and for several.
    """
    [text], most = reader.read(quality.texts()[:1], Cut.END, "texts"), reader.max_tokens
    lengths = [[4], [most], *([[4, 6], [most, 6, 4]] if compiled else [])]
    return [[stretched(text, length) for length in batch] for batch in lengths]


def stretched(tokens: Tokens, length: int) -> Tokens:
    """A text of so many tokens, which ends as it did: some kinds of model need that."""
    inner = tokens.ids[1:-1] or tokens.ids[:1]
    ids = [tokens.ids[0], *itertools.islice(itertools.cycle(inner), max(0, length - 2)), tokens.ids[-1]]
    return Tokens(ids[-length:], [tokens.types[0]] * min(length, len(ids)))
