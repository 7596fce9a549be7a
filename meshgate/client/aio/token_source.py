"""Which token a call carries: the one in hand while it will do, else a new one, which one caller makes for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from meshgate.client.aio.transport import Lock, made, within
from meshgate.client.token_cache import AsyncTokenOrigin, Token, TokenCache

_FETCH_SECONDS: Final = 30.0


class AsyncTokenSource(TokenCache):
    """Tokens for the calls of a channel."""

    def __init__(self, origin: AsyncTokenOrigin, clock: Callable[[], float] = time.time) -> None:
        super().__init__(origin, clock)
        self._lock = Lock()

    async def get(self, timeout: float | None = None) -> Token:
        """The token to use now. Raises Unauthenticated (TOKEN_UNAVAILABLE, TOKEN_UNREADABLE).

        On an event loop it takes `timeout` seconds, and 30 at most. A thread waits for as long as the origin takes.
        """
        if (token := self._ready()) is not None:
            return token
        try:
            async with within(_FETCH_SECONDS if timeout is None else min(timeout, _FETCH_SECONDS)), self._lock:
                return self._ready() or self._keep(await made(self._origin()))
        except Exception as error:  # the caller's own function may raise anything
            return self._old(error)
