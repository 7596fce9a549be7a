"""Classifiers of tokens: one row of raw scores a token."""

from __future__ import annotations

from collections.abc import Sequence

from services.classification.model.classifier import Classifier
from services.classification.model_proxy import Scores
from services.text.tokens import Tokens


class Tagger(Classifier):
    """A named classifier whose logits are one a token and label."""

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Logits, float32 [tokens, labels], for each input."""
        return [each[: tokens.length] for each, tokens in zip(super().rows(batch), batch, strict=True)]
