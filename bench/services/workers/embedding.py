"""The embedding service's model and tokeniser on sorted batches: no server, no queue, no caller who waits."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

import meshgate.runtime.tls13  # noqa: F401 - before grpc

# isort: split
from bench.services import worker
from services import heap
from services.embedding import model
from services.embedding.config import ModelConfig
from services.embedding.model import EmbeddingModel, Item
from services.tokens import Cut


def main() -> None:
    """Batches hold as many texts as there would be callers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    heap.keep()
    loaded = model.load(ModelConfig.model_validate({"device": parser.parse_args().device}))
    loaded.warm_up()
    worker.serve("embedding", lambda order: _work(loaded, order))


def _work(loaded: EmbeddingModel, order: worker.Order) -> worker.Done:
    done, until = worker.Done(), time.perf_counter() + order.seconds
    while (began := time.perf_counter()) < until:
        done.messages += _embed(loaded, order.items, order.callers)
        done.latencies.append(time.perf_counter() - began)
    return done


def _embed(loaded: EmbeddingModel, texts: Sequence[str], size: int) -> int:
    tokens = asyncio.run(loaded.tokeniser.encode(texts, Cut.END, "inputs"))
    tokens.sort(key=lambda each: each.length)
    items = [Item(loaded, each, loaded.card.pooling) for each in tokens]
    for start in range(0, len(items), size):
        loaded.run(items[start : start + size])
    return len(items)


if __name__ == "__main__":
    main()
