"""How many tokens a checkpoint takes at most."""

from __future__ import annotations

from typing import Any, Final

_PADDED: Final = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Kinds of model that count positions from behind the padding token's number, and so have fewer than they say."""
_NAMES: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_USUAL: Final = 512
"""The most tokens of a checkpoint that bounds them nowhere."""


def longest(facts: Any, limit: int | None) -> int:
    """The most tokens that a configuration of transformers allows, and `limit` does, which is the tokeniser's or that
    of a file beside it; whichever is less.
    """
    positions = _positions(facts)
    found = [each for each in (positions, limit) if each is not None and 0 < each < _ENDLESS]
    return min(found, default=_USUAL)


_ENDLESS: Final = 1 << 40
"""The limit of a tokeniser without one is larger than this."""


def _positions(facts: Any) -> int | None:
    """None where there is no bound: positions that are computed, or relative."""
    text = facts.get_text_config()
    said = [getattr(text, name, None) for name in _NAMES]
    positions = next((each for each in said if isinstance(each, int) and each > 0), None)
    if positions is not None and facts.model_type in _PADDED:
        positions -= (facts.pad_token_id or 0) + 1
    return positions
