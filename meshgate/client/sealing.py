"""What a sealed channel does to messages, whichever way they travel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from meshgate import errors
from meshgate.client import tokens
from meshgate.sealing import PublicKey, SenderSession, seal_request
from meshgate.v1 import sealed_pb2

_SERVICES: Final = ("GenerationService", "EmbeddingService", "ClassificationService")
_PREFIXES: Final = tuple(f"/meshgate.v1.{name}/" for name in _SERVICES)
_FRESH_SECONDS: Final = 600.0
KEYS_TIMEOUT: Final = 30.0
"""Seconds that asking for the keys may take."""
KEY_UNKNOWN: Final = "SEAL_KEY_UNKNOWN"


def seals(method: str) -> bool:
    """Whether a method's calls are sealed: those of models are, lists and health are not."""
    return method.startswith(_PREFIXES)


class Sealer:
    """Seals requests to the gateway's present key, for whom the token names."""

    def __init__(
        self, token: Callable[[], str], pinned: Collection[str], clock: Callable[[], float] = time.time
    ) -> None:
        """`pinned` are fingerprints in hexadecimal; without any, keys are believed as TLS delivers them."""
        self._token = token
        self._pinned = frozenset(fingerprint.lower().replace(":", "") for fingerprint in pinned)
        self._clock = clock
        self._lock = threading.Lock()
        self._key: PublicKey | None = None
        self._stale_at = 0.0

    def key(self) -> PublicKey | None:
        """The key in use, or None when keys must be asked for."""
        with self._lock:
            return self._key if self._clock() < self._stale_at else None

    def take(self, listed: sealed_pb2.ListSealingKeysResponse) -> PublicKey:
        """Chooses among the keys of KeyService: the first that is the gateway's, and pinned where any are.

        Raises PermissionDenied (SEAL_KEY_NOT_PINNED) when there is none: better no call than one to a stranger.
        """
        for offered in listed.keys:
            key = self._believed(offered)
            if key is not None:
                with self._lock:
                    until = offered.not_after_unix_ms / 1000
                    self._key, self._stale_at = key, min(self._clock() + _FRESH_SECONDS, until)
                return key
        raise errors.PermissionDenied("the gateway offers no sealing key to trust", reason="SEAL_KEY_NOT_PINNED")

    def forget(self) -> None:
        """Asks for keys again before the next call."""
        with self._lock:
            self._key = None
            self._stale_at = 0.0

    def _believed(self, offered: sealed_pb2.SealingKey) -> PublicKey | None:
        if offered.recipient != sealed_pb2.SEALING_RECIPIENT_GATEWAY:
            return None
        try:
            key = PublicKey(offered.suite, offered.public_key)
        except ValueError:
            return None  # a suite of a later version
        return key if not self._pinned or key.fingerprint.hex() in self._pinned else None

    def seal(self, key: PublicKey, method: str, request: Any, data: bytes) -> tuple[sealed_pb2.Envelope, SenderSession]:
        """The envelope of a first request, `data` its serialised form."""
        tenant, subject = tokens.principal(self._token())
        inner = request.request if "request" in request.DESCRIPTOR.fields_by_name else request
        return seal_request(
            key,
            data,
            method=method,
            model=inner.model,
            tenant=tenant,
            subject=subject,
            now_ms=int(self._clock() * 1000),
        )


def opened(session: SenderSession, reply: Any) -> bytes:
    """The response of a sealed unary call. Raises InvalidArgument (SEAL_INVALID)."""
    message = session.open_response(reply.segment)
    session.close()
    return message or b""
