"""From a classifier's raw scores to what the contract returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meshgate.errors import Internal
from meshgate.v1 import classification_pb2 as pb

Scores = NDArray[np.float32]


def scored(raw: Scores, function: pb.ScoreFunction.ValueType) -> Scores:
    """Raw scores [..., labels] through a score function, in float32 and without overflow."""
    wide = raw.astype(np.float64)
    if function == pb.SCORE_FUNCTION_SOFTMAX:
        powers = np.exp(wide - wide.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True), dtype=np.float32)
    if function == pb.SCORE_FUNCTION_SIGMOID:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * wide)), dtype=np.float32)
    return raw


def ranked(raw: Scores, scores: Scores, labels: Sequence[str], top_k: int) -> list[pb.LabelScore]:
    """The `top_k` best labels, best first; ties in the order of `labels`. The order is that of the raw scores: those
    of a function are equal where it has reached 1.
    """
    best = np.argsort(-raw, kind="stable")[:top_k]
    return [pb.LabelScore(label=labels[index], score=float(scores[index])) for index in best]


def checked(raw: Scores) -> Scores:
    """Raises Internal where a model has made something that is no number: that must not look like a score."""
    if not np.isfinite(raw).all():
        raise Internal("the model failed to run this input")
    return raw
