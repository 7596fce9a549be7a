"""Giving memory back to a device that had none left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from services.batching import Fault
from services.common.error_kinds import classify


@contextmanager
def giving_back(device: torch.device) -> Iterator[None]:
    """What the block moves to smaller places is given back; where there is no memory to move it, it stays."""
    try:
        yield
    except Exception as error:
        if classify(error) is not Fault.MEMORY:
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
