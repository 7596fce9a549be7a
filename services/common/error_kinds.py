"""Whose fault an error of torch is: of the input, of the batch's size, or of the device."""

from __future__ import annotations

from typing import Final

import torch

from services.batching import Fault, error_kinds

_CPU_MEMORY: Final = ("DefaultCPUAllocator", "not enough memory")
"""What torch says where the CPU has no memory; it has no kind of error for that."""


def classify(error: BaseException) -> Fault:
    """An error of the accelerator itself is final: every call after it fails too, until the process is a new one."""
    if isinstance(error, torch.OutOfMemoryError):
        return Fault.MEMORY
    if isinstance(error, torch.AcceleratorError):
        return Fault.MODEL
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_MEMORY):
        return Fault.MEMORY
    return error_kinds.classify(error)
