"""Multinomial logistic regression over an encoder's vectors, ready for use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_SAME_ENCODER: Final = 0.995
"""Cosine of one text's vectors: bfloat16 and float32 of one encoder agree to 0.9998, other encoders don't agree."""


@dataclass(frozen=True, slots=True)
class Head:
    """A classifier without its encoder."""

    labels: tuple[str, ...]
    weight: Matrix
    """[labels, dimensions]."""
    bias: Matrix
    """[labels]."""
    probe: Matrix
    """The vector [dimensions] that the encoder made of a certain text, to know it again."""

    def raw(self, vectors: Matrix) -> Matrix:
        """Raw scores [texts, labels] of vectors [texts, dimensions] of norm 1."""
        return np.asarray(vectors @ self.weight.T + self.bias, dtype=np.float32)

    def fits(self, probe: Matrix) -> bool:
        """Whether it was made for the encoder that makes this vector, of norm 1, of the same text."""
        return probe.shape == self.probe.shape and float(probe @ self.probe) >= _SAME_ENCODER
