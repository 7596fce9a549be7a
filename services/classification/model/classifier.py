"""Classifiers: token ids in, one raw score a label out. The named ones have labels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from services.classification.model_proxy import Card, Scores
from services.cpu.cpu_share import CpuShare, threads_of
from services.encoders.inputs import Form, Inputs
from services.sentence_transformers.model import EmbeddingModel
from services.text.tokens import Tokeniser, Tokens
from services.weights.load_weights import Weights


class Classifier:
    """A named classifier: a module whose logits are one a label."""

    def __init__(
        self, module: Any, card: Card, tokeniser: Tokeniser, form: Form, weights: Weights | None = None
    ) -> None:
        self.card = card
        self.weights = weights or Weights()
        self.tokeniser = tokeniser
        parameter = next(module.parameters())
        self.dtype = str(parameter.dtype).removeprefix("torch.")
        self._module = module
        self._device = parameter.device
        self.device = self._device.type
        self._form = form
        self.threads = threads_of(self._device)
        self._sharing = CpuShare(self.threads, serial=self.weights.serial)

    @torch.inference_mode()
    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Logits, float32 [labels], for each input."""
        return [each.numpy() for each in self._form.run(batch, self._logits, self._device)]

    def _logits(self, _: Sequence[int], inputs: Inputs) -> Tensor:
        """All that the module says of a batch, float32 [inputs, ...] on the CPU."""
        with self._sharing.batch(inputs["input_ids"].numel()):
            output = self._module(**inputs)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits.float().cpu()


class ZeroShot:
    """An embedding model, whose vectors are compared."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.card = Card(prompt=model.card.prompts.get(model.card.default_prompt, ""))
        self.tokeniser = model.tokeniser
        self.dtype = model.encoder.dtype
        self.device = model.encoder.device
        self.threads = model.encoder.threads
        self.weights = model.encoder.weights
        self._model = model

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Vectors, float32 [dimensions] of norm 1, for each input."""
        vectors = self._model.run(batch, [self._model.card.pooling] * len(batch))[:, : self._model.card.dimensions]
        return list(torch.nn.functional.normalize(torch.from_numpy(vectors)).numpy())
