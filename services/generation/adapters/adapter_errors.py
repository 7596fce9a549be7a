"""What is said of adapters that can't be had. Neither a path nor anything that stands in their files."""

from __future__ import annotations

from meshgate.errors import InvalidArgument, NotFound


def absent() -> NotFound:
    """There is none of that name, or it is another tenant's: that looks the same."""
    return NotFound("no such adapter", reason="ADAPTER_NOT_FOUND")


def unusable(why: str) -> InvalidArgument:
    """It is there, and its owner has to mend it."""
    return InvalidArgument.of("adapter", why, reason="ADAPTER_UNUSABLE")
