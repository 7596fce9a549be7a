"""The generation service's step loop, without the server around it: the same model, cache and scheduler."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import meshgate.rpc.tls13  # noqa: F401 - before grpc
import services.cpu.openmp  # noqa: F401 - before torch

# isort: split
from bench.services.workers import protocol
from meshgate.errors import MeshError
from services.generation.config import EngineConfig, ModelConfig
from services.generation.engine import engine_factory
from services.generation.engine.interface import Delta, Job, Sampling
from services.generation.engine.loaded_model import LoadedModel
from services.generation.scheduler.scheduler import Scheduler
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.text.detokenise import TokenBytes

_PREFILL = EngineConfig.model_validate({}).prefill_tokens


def main() -> None:
    """Serves orders."""
    parser = argparse.ArgumentParser()
    for name in ("--model", "--device", "--dtype"):
        parser.add_argument(name, required=True)
    flags = parser.parse_args()
    settings = ModelConfig.model_validate({"source": flags.model, "device": flags.device, "dtype": flags.dtype})
    loaded: dict[int, tuple[LoadedModel, Any]] = {}

    def work(order: protocol.Order) -> protocol.Done:
        if order.callers not in loaded:
            loaded.clear()
            loaded[order.callers] = engine_factory.load(settings, EngineConfig(max_batch=order.callers), "model")
        return _work(*loaded[order.callers], order)

    protocol.serve("steps", work)


def _work(model: LoadedModel, tokenizer: Any, order: protocol.Order) -> protocol.Done:
    tokens = TokenBytes(tokenizer, model.vocabulary_size)
    scheduler = Scheduler(model, tokens, frozenset(), _PREFILL)  # no token ends an answer
    done, turns = protocol.Done(), protocol.Turns(order)

    def ask(caller: int) -> None:
        prompt = turns.next(caller)
        if prompt is not None:
            job = Job(tokenizer.encode(prompt), order.tokens, Sampling(temperature=0.0))
            scheduler.add(GenerationRequest(job, _Caller(caller, done, ask), time.monotonic()))

    for caller in range(order.callers):
        ask(caller)
    while not scheduler.idle():
        scheduler.step()
    return done


class _Caller:
    """Hears of its job, and asks again when it is done."""

    def __init__(self, number: int, done: protocol.Done, ask: Any) -> None:
        self._number = number
        self._done = done
        self._ask = ask
        self._began = time.perf_counter()

    def deltas(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self._done.messages += len(delta.token_ids)
            if delta.finish is not None:
                self._done.latencies.append(time.perf_counter() - self._began)
                self._ask(self._number)

    def failed(self, error: MeshError) -> None:
        raise error


if __name__ == "__main__":
    main()
