"""Where a caller's token comes from, and when the next one is needed."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

Source = str | Path | Callable[[], str]
"""The token, a file that holds it, or a function that makes it."""

_EARLY_SECONDS: Final = 30.0
_UNKNOWN_SECONDS: Final = 60.0


class TokenSource:
    """The present token of a source. Safe to use from several threads."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self._stamp = 0

    def get(self) -> str:
        """The token; a new one when a file changed or the last is about to expire. Raises what the source raises."""
        if isinstance(self._source, str):
            return self._source
        with self._lock:
            if self._clock() >= self._renew_at or self._changed():
                self._token = self._read()
                self._renew_at = self._next()
            return self._token

    def _changed(self) -> bool:
        return isinstance(self._source, Path) and self._source.stat().st_mtime_ns != self._stamp

    def _read(self) -> str:
        if isinstance(self._source, Path):
            self._stamp = self._source.stat().st_mtime_ns
            return self._source.read_text(encoding="utf-8").strip()
        assert callable(self._source)  # noqa: S101 - the third of three
        return self._source()

    def _next(self) -> float:
        expires = claims(self._token).get("exp")
        if not isinstance(expires, int | float):
            return self._clock() + _UNKNOWN_SECONDS
        return max(expires - _EARLY_SECONDS, self._clock() + 1.0)


def claims(token: str) -> dict[str, Any]:
    """What a JWT says, unverified: the gateway verifies. Empty for what is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}


def principal(token: str) -> tuple[str, str]:
    """The tenant and the subject of a token, which a sealed envelope is bound to."""
    said = claims(token)
    return str(said.get("tenant", "")), str(said.get("sub", ""))
