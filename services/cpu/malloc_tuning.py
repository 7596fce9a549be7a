"""What the C library keeps of memory that torch frees.

glibc gives freed memory back to the kernel where it is large, or lies at the heap's end, and what a layer frees the
next one asks for: the kernel then clears the same pages again and again, which took a tenth of a batch's time. So it is
told to keep what a batch needs. Texts are another matter: what a long one took is given back. Without glibc nothing is
done.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_KEPT: Final = 64 << 20
"""Bytes at the heap's end, as much as a heap of one thread can have."""
_LARGE: Final = 32 << 20
"""Blocks from so many bytes on are the kernel's; glibc takes no more for an answer."""
_SETTINGS: Final = (("MALLOC_TRIM_THRESHOLD_", -1, _KEPT), ("MALLOC_MMAP_THRESHOLD_", -3, _LARGE))
"""By the variables that say it otherwise, with the numbers of mallopt(3)."""


def keep() -> None:
    """Says so, but for what the environment says."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for variable, parameter, size in _SETTINGS:
        if variable not in os.environ:
            mallopt(parameter, size)


def trim() -> None:
    """Gives back what is free, wherever it lies. Some milliseconds."""
    trimming = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trimming is not None:
        trimming(0)
