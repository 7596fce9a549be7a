"""How the vectors of a text's tokens become one."""

from __future__ import annotations

from enum import Enum


class Pooling(Enum):
    """How token vectors become one."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
    MAX = "max"
    """The largest of each dimension."""
    SQRT = "sqrt"
    """The sum over the root of how many there are."""
    WEIGHTED = "weighted"
    """The mean in which the first token counts once, the second twice, and so on."""
