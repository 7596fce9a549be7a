"""How many tokens of context a causal model is right for, and what bounds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from services.generation.model import decoder_kinds

_WINDOWS: Final = ("sliding_window", "sliding_window_size", "attention_window_size", "window_size")
_BY_LENGTH: Final = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies depend on the length of the whole sequence: beyond the original length a prompt
that is read in pieces, and a row beside a longer one, would get other frequencies than the model alone has.
"""


class Bound(NamedTuple):
    """So many tokens, and why no more."""

    tokens: int
    why: str


def bound(config: Any, wanted: int) -> Bound:
    """The narrowest bound of a model's configuration; `wanted` where that is less."""
    text = config.get_text_config()
    found = (Bound(wanted, "max_context"), *_trained(text), *_windows(text), *_rotary(text))
    return min(found, key=lambda each: each.tokens)


def _trained(text: Any) -> Iterator[Bound]:
    places = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    if places:
        yield Bound(places - decoder_kinds.first_position(text), "the positions that the model was trained for")


def _windows(text: Any) -> Iterator[Bound]:
    """Every row is shorter than a sliding window, where layers have one."""
    local = "local" in (getattr(text, "attention_layers", None) or ())
    named = "sliding_attention" in (getattr(text, "layer_types", None) or ())
    used = local or named or getattr(text, "use_sliding_window", None) is not False
    for name in _WINDOWS if used else ():
        window = getattr(text, name, None)
        if isinstance(window, int) and window > 0:
            yield Bound(window, "the sliding window of its attention")


def _rotary(text: Any) -> Iterator[Bound]:
    for rope in _ropes(getattr(text, "rope_parameters", None)):
        original = rope.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None)
        if any(kind in str(rope.get("rope_type", "")) for kind in _BY_LENGTH) and original:
            yield Bound(int(original), "the length beyond which its rotary embeddings depend on the whole sequence")


def _ropes(found: Any) -> Iterator[Mapping[str, Any]]:
    """The parameters of rotary embeddings: one set of them, or one for each kind of layer."""
    if isinstance(found, Mapping):
        yield found
        yield from (each for each in found.values() if isinstance(each, Mapping))
