"""Keyed digests of content: they prove later that a text was the one sent, and tell nothing to who lacks the key."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

KEY_BYTES: Final = 32


class ContentMac:
    """HMAC-SHA256 over the messages of one direction of a call.

    Each message is preceded by its length in eight bytes, so that the same bytes cut differently differ, and all by
    the direction's name, so that an echo is no proof of a question.
    """

    __slots__ = ("_mac",)

    def __init__(self, key: bytes, direction: str) -> None:
        """`direction` is `request` or `reply`."""
        self._mac = hmac.new(key, direction.encode() + b"\x00", hashlib.sha256)

    def update(self, message: bytes) -> None:
        """Adds the next message."""
        self._mac.update(len(message).to_bytes(8, "big"))
        self._mac.update(message)

    def hexdigest(self) -> str:
        """64 hexadecimal digits of all messages so far."""
        return self._mac.hexdigest()
