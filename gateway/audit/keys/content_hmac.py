"""HMACs of content: they prove later that a text was the one sent, and reveal nothing without the key.

A key is in use for a time and is kept for ever after, so that old records can be matched. To make that impossible,
delete the key's file: nothing else depends on it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from gateway.audit.keys.key_rotation import KeyRotation

KEY_BYTES: Final = 32
_STEM: Final = "audit-hmac"
_SUFFIX: Final = ".key"

Direction = Literal["request", "reply"]


class ContentHmac:
    """HMAC-SHA256 over the messages of one direction of a call.

    Each message comes after its length in eight bytes, so that the same bytes in other pieces give another value. All
    come after the direction's name, so that a reply that repeats its request has another value.
    """

    __slots__ = ("_mac",)

    def __init__(self, key: bytes, direction: Direction) -> None:
        self._mac = hmac.new(key, direction.encode() + b"\x00", hashlib.sha256)

    def copy(self) -> ContentHmac:
        """A copy. A copy of a fresh one is a new one, several times cheaper than one from the key."""
        made = ContentHmac.__new__(ContentHmac)
        made._mac = self._mac.copy()  # noqa: SLF001 - its own class
        return made

    def update(self, message: bytes) -> None:
        """Adds the next message."""
        self._mac.update(len(message).to_bytes(8, "big"))
        self._mac.update(message)

    def hexdigest(self) -> str:
        """64 hexadecimal digits of all messages so far."""
        return self._mac.hexdigest()


class ContentHmacs(NamedTuple):
    """The HMACs of one call, and the id of their key."""

    request: ContentHmac
    reply: ContentHmac
    key_id: str


class HmacKeys:
    """The HMAC keys in a directory. Makes the first one, and the next one when the newest is old enough."""

    def __init__(self, directory: Path, age_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError, or ValueError for a file that is not a key."""
        self._files = KeyRotation(directory, _STEM, _SUFFIX)
        self._age = age_seconds
        self._clock = clock
        self.rotate()

    def rotate(self) -> None:
        """Takes the newest key into use, and makes it where it is due. Raises as the constructor does."""
        number = self._files.newest(lambda: secrets.token_bytes(KEY_BYTES), before=self._clock() - self._age)
        key = _load(self._files.path(number))
        self._blank = ContentHmacs(ContentHmac(key, "request"), ContentHmac(key, "reply"), key_id(key))

    def hmacs(self) -> ContentHmacs:
        """New HMACs for one call."""
        blank = self._blank
        return ContentHmacs(blank.request.copy(), blank.reply.copy(), blank.key_id)


def find_key(directory: Path, wanted: str) -> bytes | None:
    """The key of an id, however old. Raises OSError, or ValueError for a file that is not a key."""
    keys = (_load(path) for _, path in KeyRotation(directory, _STEM, _SUFFIX).listed())
    return next((key for key in keys if key_id(key) == wanted), None)


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that name a key and reveal nothing of it."""
    return hashlib.sha256(b"meshgate audit hmac key v1\n" + key).hexdigest()[:16]


def _load(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path.name} is not {KEY_BYTES} bytes")
    return key
