"""What a training is told."""

from __future__ import annotations

from dataclasses import dataclass


class Stopped(Exception):
    """The training was called off."""


@dataclass(frozen=True)
class TrainingPlan:
    """What decides the result besides the texts."""

    seed: int = 0
    balanced: bool = True
    held_out: float = 0.2
    """Share of each label's texts."""
    l2: float | None = None
    """None is whichever does best."""
