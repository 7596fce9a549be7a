"""What a batcher tells Prometheus."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from meshgate.runtime.metrics_server import Gauges
from services.batching.batcher import Batcher

_COUNTED: Final = {
    "batches": "Batches that ran.",
    "inputs": "Inputs that ran.",
    "tokens": "Tokens that ran, without padding.",
    "padding": "Tokens of padding that ran beside them.",
    "refused": "Calls for which there was no place.",
    "late": "Calls whose time was too short.",
    "failed_inputs": "Inputs that the model could not do.",
    "memory_splits": "Batches that the device had no memory for, and that were split.",
}


def export(readings: Gauges, batcher: Batcher[Any, Any]) -> None:
    """Adds a batcher's numbers to those that are read when Prometheus asks."""
    for name, about in _COUNTED.items():
        readings.counter(f"meshgate_batcher_{name}_total", about, partial(getattr, batcher.counts, name))
    held = batcher.admission
    readings.gauge("meshgate_batcher_calls", "Calls in hand.", lambda: held.calls.held)
    readings.gauge("meshgate_batcher_queued_tokens", "Tokens in hand.", lambda: held.tokens.held)
