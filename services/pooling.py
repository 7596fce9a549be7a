"""How the vectors of a text's tokens become one."""

from __future__ import annotations

from enum import Enum


class Pooling(Enum):
    """How token vectors become one."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "last"
