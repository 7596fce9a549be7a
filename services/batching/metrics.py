"""The Prometheus metrics of a batcher."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from meshgate.runtime.metrics_server import Gauges
from services.batching.batcher import Batcher

_COUNTED: Final = {
    "batches": "Batches that ran.",
    "inputs": "Inputs that ran.",
    "tokens": "Tokens that ran, without padding.",
    "padding": "Padding tokens that ran.",
    "refused": "Calls that were refused because the queue was full.",
    "late": "Calls that were refused or ended because of their deadline.",
    "failed_inputs": "Inputs that the model failed to run.",
    "memory_splits": "Batches that were split because the device ran out of memory.",
}


def export(readings: Gauges, batcher: Batcher[Any, Any]) -> None:
    """Adds the metrics of a batcher, which are read at each scrape."""
    for name, about in _COUNTED.items():
        readings.counter(f"meshgate_batcher_{name}_total", about, partial(getattr, batcher.counts, name))
    held = batcher.admission
    readings.gauge("meshgate_batcher_calls", "Calls in progress.", lambda: held.calls.held)
    readings.gauge("meshgate_batcher_queued_tokens", "Input tokens in progress.", lambda: held.tokens.held)
