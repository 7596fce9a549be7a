"""The cause of an error of torch: the input, the batch's size, or the device."""

from __future__ import annotations

from typing import Final

import torch

from services.batching import Fault, error_kinds

_CPU_MEMORY: Final = ("DefaultCPUAllocator", "not enough memory")
"""The text of torch's error when the CPU has no memory; torch has no class for it."""


def classify(error: BaseException) -> Fault:
    """An error of the accelerator itself is final: every call after it fails too, until the process is a new one."""
    if isinstance(error, torch.OutOfMemoryError):
        return Fault.MEMORY
    if isinstance(error, torch.AcceleratorError):
        return Fault.MODEL
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_MEMORY):
        return Fault.MEMORY
    return error_kinds.classify(error)
