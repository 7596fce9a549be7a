"""Which tokens end an output."""

from __future__ import annotations

from typing import Any


def end_tokens(module: Any) -> frozenset[int]:
    """The ids that end the model's turn, by its configuration."""
    end = module.generation_config.eos_token_id if module.can_generate() else None
    end = module.config.get_text_config().eos_token_id if end is None else end
    return frozenset([end] if isinstance(end, int) else end or ())


def all_end_tokens(module_ends: frozenset[int], tokenizer: Any, vocabulary_size: int) -> frozenset[int]:
    """Those ids, and the end that the tokeniser names: some checkpoints name it nowhere else."""
    named = getattr(tokenizer, "eos_token_id", None)
    ends = module_ends | ({named} if isinstance(named, int) else set())
    return frozenset(end for end in ends if 0 <= end < vocabulary_size)
