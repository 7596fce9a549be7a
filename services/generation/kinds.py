"""What sets some kinds of decoder apart from others."""

from __future__ import annotations

from typing import Any, Final

_BEHIND_PADDING: Final = frozenset(
    ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod")
)
"""They count positions from behind the padding token's number."""


def first_position(config: Any) -> int:
    """The number of a text's first position."""
    if config.model_type not in _BEHIND_PADDING:
        return 0
    return int(config.pad_token_id or 0) + 1
