"""The bounds of one model, and the bounds of the contract that are the same for every model."""

from __future__ import annotations

from dataclasses import dataclass

TEXT_BYTES = 1_048_576
MESSAGES = 1024
NAME_BYTES = 256
STOPS = 16
STOP_BYTES = 256
CANDIDATES = 16
LOGPROBS = 20
SEED = 2**64 - 1
DEFAULT_OUTPUT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a model, in tokens.

    `context` bounds input and output together. `source` bounds the input alone, of an encoder-decoder.
    """

    name: str
    aliases: tuple[str, ...]
    context: int
    max_output_tokens: int
    max_candidates: int
    vocabulary_size: int
    source: int | None = None

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` means this model; an empty name means the default model."""
        return not name or name == self.name or name in self.aliases
