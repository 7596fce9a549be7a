"""Numbers as people write them."""

from __future__ import annotations

import math


def written(value: float) -> str:
    """`value` with commas and without an exponent: 1,048,576 and 0.5, never 1.04858e+06."""
    if not math.isfinite(value):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,.12f}".rstrip("0")
