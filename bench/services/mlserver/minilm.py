"""A model of MLServer, run in its environment: the encoder and the pooling of the embedding service."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer


class MiniLM(MLModel):
    """Texts, bytes [n, 1], to vectors of norm 1, float32 [n, dimensions]."""

    async def load(self) -> bool:
        settings = self.settings.parameters
        extra = settings.extra
        self._device = extra["device"]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(settings.uri)
        module: Any = AutoModel.from_pretrained(settings.uri, dtype=getattr(torch, extra["dtype"]))
        self._module = module.to(self._device).eval()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        vectors = NumpyCodec.encode_output("embedding", self._embed(texts))
        return InferenceResponse(model_name=self.name, outputs=[vectors])

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        inputs = inputs.to(self._device)
        states = self._module(**inputs).last_hidden_state.float()
        weight = inputs["attention_mask"].unsqueeze(-1).float()
        pooled = (states * weight).sum(1) / weight.sum(1)
        vectors: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors
