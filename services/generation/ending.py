"""Which tokens end an output."""

from __future__ import annotations

from typing import Any


def end_tokens(module: Any) -> frozenset[int]:
    """The ids that end the model's turn."""
    end = module.generation_config.eos_token_id if module.can_generate() else None
    end = module.config.get_text_config().eos_token_id if end is None else end
    return frozenset([end] if isinstance(end, int) else end or ())
