"""The embedding service's model and tokeniser on sorted batches: no server, no queue, no caller who waits."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import Any

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
import torch
from transformers import AutoModel

from bench.services.contenders import embedders
from bench.services.workers import protocol
from services.cpu import malloc_tuning
from services.embedding import model
from services.embedding.config import ModelConfig
from services.encoders.encoder import Encoder
from services.sentence_transformers.model import EmbeddingModel
from services.text.tokens import Cut


def main() -> None:
    """Batches hold as many texts as there would be callers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--plain", action="store_true", help="the modules of transformers, as they are")
    flags = parser.parse_args()
    malloc_tuning.keep()
    loaded = model.load(ModelConfig.model_validate({"device": flags.device}))
    loaded = _plain(loaded, flags.device) if flags.plain else loaded
    loaded.warm_up()
    protocol.serve("embedding", lambda order: _work(loaded, order))


def _plain(loaded: EmbeddingModel, device: str) -> EmbeddingModel:
    dtype = getattr(torch, loaded.encoder.dtype)
    module: Any = AutoModel.from_pretrained(embedders.directory(), dtype=dtype)
    return EmbeddingModel(Encoder(module.to(device).eval(), 0), loaded.tokeniser, loaded.card)


def _work(loaded: EmbeddingModel, order: protocol.Order) -> protocol.Done:
    done, until = protocol.Done(), time.perf_counter() + order.seconds
    while (began := time.perf_counter()) < until:
        done.messages += _embed(loaded, order.items, order.callers)
        done.latencies.append(time.perf_counter() - began)
    return done


def _embed(loaded: EmbeddingModel, texts: Sequence[str], size: int) -> int:
    tokens = asyncio.run(loaded.tokeniser.encode(texts, Cut.END, "inputs"))
    tokens.sort(key=lambda each: each.length)
    for start in range(0, len(tokens), size):
        batch = tokens[start : start + size]
        loaded.run(batch, [loaded.card.pooling] * len(batch))
    return len(tokens)


if __name__ == "__main__":
    main()
