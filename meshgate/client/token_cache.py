"""Where a caller's token comes from, and when to get a new one. Without grpc; the clock is injected.

The claims are read and not verified: that is for the gateway. The SDK needs to know when the token ends, and, for
sealed calls, whom it names.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from meshgate import errors
from meshgate.runtime.files import file_stamp

_SPARE_SECONDS: Final = 60.0
_SPARE_SHARE: Final = 0.1
_UNREADABLE: Final = "the token is not readable: expected three base64url parts"
_TOKEN: Final = re.compile(r"[!-~]{1,8192}", re.ASCII)

TokenOrigin: TypeAlias = str | os.PathLike[str] | Callable[[], str]
"""A token, the file that holds one, or what makes one."""
AsyncTokenOrigin: TypeAlias = TokenOrigin | Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and what it says of itself. Times are in seconds since the Unix epoch."""

    value: str = field(repr=False)
    tenant: str | None
    subject: str | None
    expires_at: float | None
    renew_at: float | None
    """When to get the next: 60 s before the end, or a tenth of the life left where that is less."""


def parse(value: str, now: float) -> Token:
    """Reads a token obtained at `now`. One that is not a JWT has no claims. Raises Unauthenticated for what is none."""
    value = value.strip()
    if _TOKEN.fullmatch(value) is None:
        raise errors.Unauthenticated(_UNREADABLE, reason="TOKEN_UNREADABLE")
    claims = _claims(value)
    expires_at = _number(claims.get("exp"))
    spare = 0.0 if expires_at is None else min(_SPARE_SECONDS, _SPARE_SHARE * max(0.0, expires_at - now))
    return Token(
        value=value,
        tenant=_text(claims.get("tenant")),
        subject=_text(claims.get("sub")),
        expires_at=expires_at,
        renew_at=None if expires_at is None else expires_at - spare,
    )


def _claims(value: str) -> dict[str, Any]:
    parts = value.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


class TokenCache:
    """The token in hand and whether it will do. What both kinds of source share."""

    def __init__(self, origin: AsyncTokenOrigin, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._token: Token | None = None
        self._path: Path | None = None
        self._stamp: file_stamp.FileStamp | None = None
        self._reading = threading.Lock()
        self._make: Callable[[], str | Awaitable[str]] | None = None
        if callable(origin):
            self._make = origin
        elif isinstance(origin, str):
            self._token = parse(origin, clock())
        else:
            self._path = Path(origin)

    def _ready(self) -> Token | None:
        """The token to use now; None where one has to be made first."""
        if self._path is not None:
            return self._read(self._path)
        if self._make is None or self._before(lambda token: token.renew_at):
            return self._token
        return None

    def _before(self, when: Callable[[Token], float | None]) -> bool:
        """Whether there is a token and its time `when` is known and to come."""
        end = None if self._token is None else when(self._token)
        return end is not None and self._clock() < end

    def _read(self, path: Path) -> Token:
        """The token in a file, read again whenever the file changed."""
        try:
            with self._reading:  # else two threads could keep one's token with the other's stamp
                return self._current(path)
        except (OSError, ValueError, errors.Unauthenticated) as error:
            return self._old(error)  # a file that is being replaced may be missing or empty for a moment

    def _current(self, path: Path) -> Token:
        """The token of the file as it is now. Raises OSError, ValueError, or Unauthenticated."""
        found = file_stamp.of(path)
        if self._token is None or found != self._stamp:
            self._token = parse(path.read_text(encoding="ascii"), self._clock())
            self._stamp = found
        return self._token

    def _origin(self) -> Callable[[], str | Awaitable[str]]:
        assert self._make is not None  # noqa: S101 - else there was nothing to renew
        return self._make

    def _keep(self, value: str) -> Token:
        self._token = parse(value, self._clock())
        return self._token

    def _old(self, error: Exception) -> Token:
        """The token in hand while it lasts, since there was no getting a new one."""
        if self._token is not None and self._before(lambda token: token.expires_at):
            return self._token
        raise errors.Unauthenticated("there is no token to be had", reason="TOKEN_UNAVAILABLE") from error
