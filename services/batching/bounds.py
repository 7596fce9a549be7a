"""What a batcher may hold, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a batcher may hold."""

    batch_tokens: int
    """Of one batch, padding included."""
    queue_tokens: int
    """In hand: those of the inputs, without padding."""
    queue_calls: int = 4096
    """In hand, those whose inputs are still being read included."""
    hang_seconds: float = 120.0
    """A batch that takes longer will never end."""


@dataclass(slots=True)
class Counts:
    """What happened since the start."""

    batches: int = 0
    inputs: int = 0
    tokens: int = 0
    padding: int = 0
    """Tokens that batches had beside those of their inputs."""
    refused: int = 0
    """Calls for which there was no place."""
    late: int = 0
    """Calls whose time was too short."""
    failed_inputs: int = 0
    memory_splits: int = 0
    """Batches that the device had no memory for."""

    def add(self, inputs: int, tokens: int, padding: int) -> None:
        """A batch was run."""
        self.batches += 1
        self.inputs += inputs
        self.tokens += tokens
        self.padding += padding
