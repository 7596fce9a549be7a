"""Which of the listed keys to seal to. Pure: what KeyService listed goes in, a key comes out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from meshgate import errors
from meshgate.client.options import Sealed
from meshgate.sealing import codec
from meshgate.v1 import sealed_pb2

_LISTED_AGAIN_MS: Final = 3_600_000
_FINGERPRINT_BYTES: Final = 32


def pins(fingerprints: Collection[str]) -> frozenset[bytes]:
    """Fingerprints as `meshgate` prints them: 64 hexadecimal digits, colons allowed. Raises ValueError for others."""
    if isinstance(fingerprints, str):
        raise ValueError("pinned_fingerprints: a collection of fingerprints is required, not one")
    found = frozenset(bytes.fromhex(text.replace(":", "")) for text in fingerprints)
    if any(len(pin) != _FINGERPRINT_BYTES for pin in found):
        raise ValueError("pinned_fingerprints: each is 64 hexadecimal digits")
    return found


class KeyCache:
    """The key in use, believed for an hour at most, so that a new one is taken up long before the old one ends."""

    def __init__(self, pinned: frozenset[bytes], now_ms: Callable[[], int], service: str = "") -> None:
        """`pinned` empty trusts whatever the gateway lists. `service` is the recipient; empty, it is the gateway."""
        self._service = service
        self._pinned = pinned
        self._now_ms = now_ms
        self._key: codec.PublicKey | None = None
        self._until_ms = 0

    def current(self) -> codec.PublicKey | None:
        """The key to use; None where the keys have to be listed first."""
        return self._key if self._now_ms() < self._until_ms else None

    def forget(self, key: codec.PublicKey | None) -> None:
        """The gateway does not know `key`. A newer one in use by now stays."""
        if key == self._key:
            self._key, self._until_ms = None, 0

    def take(self, listed: Iterable[sealed_pb2.SealingKey]) -> codec.PublicKey:
        """Chooses the first usable key, which the gateway prefers.

        Raises Unimplemented (SEALING_UNAVAILABLE) where none is listed that we can use, and PermissionDenied
        (SEALING_KEY_NOT_PINNED) where none of those is pinned.
        """
        now = self._now_ms()
        usable = [(key, found) for found in listed if (key := _usable(found, self._service)) is not None]
        if not usable:
            whose = self._service or "the gateway"
            raise errors.Unimplemented(f"there is no key of {whose} to seal to", reason="SEALING_UNAVAILABLE")
        for key, found in usable:
            if not self._pinned or key.fingerprint in self._pinned:
                self._key, self._until_ms = key, min(now + _LISTED_AGAIN_MS, found.not_after_unix_ms)
                return key
        raise errors.PermissionDenied("no key of the recipient is pinned", reason="SEALING_KEY_NOT_PINNED")


class Recipients:
    """The keys of whoever a channel seals to: the gateway, or the service that each method is of."""

    def __init__(self, pinned: frozenset[bytes], now_ms: Callable[[], int], to: Sealed) -> None:
        """`to` says whom calls are sealed to. Raises ValueError for what is neither."""
        if to not in (True, "gateway", "service"):
            raise ValueError('sealed: True, "gateway" or "service"')
        self._pinned = pinned
        self._now_ms = now_ms
        self._services = to == "service"
        self._caches: dict[str, KeyCache] = {}

    @property
    def kind(self) -> sealed_pb2.SealingRecipient.ValueType:
        """What the envelopes' headers say."""
        if self._services:
            return sealed_pb2.SEALING_RECIPIENT_SERVICE
        return sealed_pb2.SEALING_RECIPIENT_GATEWAY

    def of(self, method: str) -> KeyCache:
        """The keys for calls of `/package.Service/Method`."""
        service = method.rpartition("/")[0].lstrip("/") if self._services else ""
        if service not in self._caches:
            self._caches[service] = KeyCache(self._pinned, self._now_ms, service)
        return self._caches[service]

    def forget(self, key: codec.PublicKey | None) -> None:
        """The recipient does not know `key`."""
        for cache in list(self._caches.values()):
            cache.forget(key)


def _usable(found: sealed_pb2.SealingKey, service: str) -> codec.PublicKey | None:
    """The key, rebuilt from its own bytes: its id and fingerprint are computed, never believed.

    Its dates are the gateway's business, which lists only what is in force: our clock may be a little off.
    """
    wanted = sealed_pb2.SEALING_RECIPIENT_SERVICE if service else sealed_pb2.SEALING_RECIPIENT_GATEWAY
    if (found.recipient, found.service) != (wanted, service) or found.suite not in codec.SUITES:
        return None
    try:
        return codec.PublicKey(found.suite, found.public_key)
    except ValueError:
        return None
