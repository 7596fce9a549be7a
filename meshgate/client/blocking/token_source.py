# Generated from meshgate/client/aio/token_source.py by `make sdk`. Change that file, not this one.
"""Which token a call carries: the one in hand while it will do, else a new one, which one caller makes for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from meshgate.client.blocking.transport import Lock, made, within
from meshgate.client.token_cache import Token, TokenCache, TokenOrigin

_FETCH_SECONDS: Final = 30.0


class TokenSource(TokenCache):
    """Tokens for the calls of a channel."""

    def __init__(self, origin: TokenOrigin, clock: Callable[[], float] = time.time) -> None:
        super().__init__(origin, clock)
        self._lock = Lock()

    def get(self, timeout: float | None = None) -> Token:
        """The token to use now. Raises Unauthenticated (TOKEN_UNAVAILABLE, TOKEN_UNREADABLE).

        On an event loop it takes `timeout` seconds, and 30 at most. A thread waits for as long as the origin takes.
        """
        if (token := self._ready()) is not None:
            return token
        try:
            with within(_FETCH_SECONDS if timeout is None else min(timeout, _FETCH_SECONDS)), self._lock:
                return self._ready() or self._keep(made(self._origin()))
        except Exception as error:  # the caller's own function may raise anything
            return self._old(error)
