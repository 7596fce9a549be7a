"""A check of a tokeniser before its model serves: tokens decoded one at a time make the text of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshgate.runtime.config import ConfigError
from services.generation.text.detokenise import Detokeniser, TokenBytes
from services.weights import quality


def check(tokenizer: Any, tokens: TokenBytes, key: str, where: Path | str) -> None:
    """Raises ConfigError, naming the section `key`, where a text comes out as another."""
    for text in quality.texts():
        ids = [each for each in _ids(tokenizer, text) if each not in tokens.special]
        if _whole(tokenizer, ids) != _told(tokens, ids):
            kind = type(tokenizer).__name__
            raise ConfigError(f"{key}.source: {where}: this {kind} is not served: its tokens can't be streamed")


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return found


def _whole(tokenizer: Any, ids: list[int]) -> str:
    """As transformers has it, but for the blanks at the ends, which belong to what stands before and after."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def _told(tokens: TokenBytes, ids: list[int]) -> str:
    detokeniser = Detokeniser(tokens)
    return "".join([*map(detokeniser.feed, ids), detokeniser.flush()]).strip()
