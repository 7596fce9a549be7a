"""The bounds of a batcher, and its counters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a batcher."""

    batch_tokens: int
    """The maximum number of tokens in one batch, padding included."""
    queue_tokens: int
    """The maximum number of input tokens in progress, without padding."""
    queue_calls: int = 4096
    """The maximum number of calls in progress, calls in tokenisation included."""
    hang_seconds: float = 120.0
    """A batch that takes longer counts as hung."""


@dataclass(slots=True)
class Counts:
    """Counters since the start."""

    batches: int = 0
    inputs: int = 0
    tokens: int = 0
    padding: int = 0
    """Padding tokens that ran."""
    refused: int = 0
    """Calls that were refused because the queue was full."""
    late: int = 0
    """Calls that were refused or ended because of their deadline."""
    failed_inputs: int = 0
    memory_splits: int = 0
    """Batches that were split because the device ran out of memory."""

    def add(self, inputs: int, tokens: int, padding: int) -> None:
        """Counts a batch that ran."""
        self.batches += 1
        self.inputs += inputs
        self.tokens += tokens
        self.padding += padding
