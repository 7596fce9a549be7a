"""transformers' own continuous batching: its manager and its thread, without the server around it."""

from __future__ import annotations

import time
from typing import Any

from bench.services.workers import protocol
from bench.services.workers.checkpoint import Loaded, load

_RESULT_SECONDS = 120.0


def main() -> None:
    """Serves orders."""
    loaded = load()
    manager = loaded.module.init_continuous_batching(generation_config=loaded.module.generation_config)
    manager.start()
    try:
        protocol.serve("paged", lambda order: _work(loaded, manager, order))
    finally:
        manager.stop(block=True)


def _work(loaded: Loaded, manager: Any, order: protocol.Order) -> protocol.Done:
    done, turns = protocol.Done(), protocol.Turns(order)
    began: dict[str, tuple[int, float]] = {}

    def ask(caller: int) -> None:
        prompt = turns.next(caller)
        if prompt is not None:
            tokens = loaded.tokenizer(prompt)["input_ids"]
            asked = manager.add_request(tokens, max_new_tokens=order.tokens, eos_token_id=-1)
            began[asked] = caller, time.perf_counter()

    for caller in range(order.callers):
        ask(caller)
    while began:
        result = manager.get_result(timeout=_RESULT_SECONDS)
        if result is None or result.error is not None:
            raise RuntimeError("the manager made nothing")
        if result.is_finished():
            caller, start = began.pop(result.request_id)
            done.messages += len(result.generated_tokens)
            done.latencies.append(time.perf_counter() - start)
            ask(caller)
    return done


if __name__ == "__main__":
    main()
