"""Classifiers of tokens: one row of raw scores a token, and where in the text it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from services.classification.model import Classifier, Scores
from services.tokens import Tokeniser, Tokens


@dataclass(frozen=True, slots=True)
class Located(Tokens):
    """Tokens that know where they come from."""

    offsets: list[tuple[int, int]] = field(default_factory=list)
    """Of each token, where it begins and ends in the text, in characters."""
    words: list[int | None] = field(default_factory=list)
    """Of each token, the number of its word; None for special tokens."""


class LocatingTokeniser(Tokeniser):
    """A tokeniser that keeps where tokens come from."""

    def _read(self, whole: Any, *, cut: bool) -> Located:
        return Located(whole.ids, whole.type_ids, cut, whole.offsets, whole.word_ids)


class Tagger(Classifier):
    """A named classifier whose logits are one a token and label."""

    @torch.inference_mode()
    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Logits, float32 [tokens, labels], for each input."""
        return [each[: tokens.length] for each, tokens in zip(self.logits(batch), batch, strict=True)]
