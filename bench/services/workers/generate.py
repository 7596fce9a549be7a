"""`model.generate`, of a batch of as many prompts as there would be callers: all begin together and end together."""

from __future__ import annotations

import time

from bench.services.prompts import taken
from bench.services.workers import protocol
from bench.services.workers.checkpoint import Loaded, load


def main() -> None:
    """Serves orders."""
    loaded = load()
    protocol.serve("generate", lambda order: _work(loaded, order))


def _work(loaded: Loaded, order: protocol.Order) -> protocol.Done:
    done, until, turn = protocol.Done(), time.perf_counter() + order.seconds, 0
    while (began := time.perf_counter()) < until:
        prompts = [taken(order.items, caller, order.callers, turn) for caller in range(order.callers)]
        done.messages += _generate(loaded, prompts, order.tokens)
        done.latencies += [time.perf_counter() - began] * order.callers
        turn += 1
    return done


def _generate(loaded: Loaded, prompts: list[str], tokens: int) -> int:
    inputs = loaded.tokenizer(prompts, padding=len(prompts) > 1, return_tensors="pt").to(loaded.module.device)
    made = loaded.module.generate(**inputs, max_new_tokens=tokens)
    return int(made[:, inputs["input_ids"].shape[1] :].numel())


if __name__ == "__main__":
    main()
