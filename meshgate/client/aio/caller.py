"""What the sealed calls of an asyncio channel share: the keys to seal to, the token, the retry policy."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc

from meshgate import errors
from meshgate.client import seal
from meshgate.client.failure import as_aio_failure, explain
from meshgate.client.keys import Recipients
from meshgate.client.options import retry_policy
from meshgate.client.retry import Attempts, Throttle
from meshgate.client.token import AsyncTokenSource, Token, parse
from meshgate.rpc.metadata import AUTHORIZATION
from meshgate.sealing import codec
from meshgate.v1 import sealed_pb2, sealed_pb2_grpc

_LIST_SECONDS: Final = 10.0


class Caller:
    """One for a channel."""

    def __init__(self, channel: grpc.aio.Channel, source: AsyncTokenSource | None, recipients: Recipients) -> None:
        self.sealed: Any = sealed_pb2_grpc.SealedServiceStub(channel)
        self._listing: Any = sealed_pb2_grpc.KeyServiceStub(channel)
        self._source = source
        self._recipients = recipients
        self._lock = asyncio.Lock()
        self._policy = retry_policy()
        self._throttle = Throttle(self._policy)

    def attempts(self, timeout: float | None) -> Attempts:
        """The attempts at a new call."""
        return Attempts(self._policy, self._throttle, timeout)

    async def begin(
        self, method: seal.Method, attempts: Attempts, metadata: Any
    ) -> tuple[seal.Exchange, tuple[tuple[str, Any], ...]]:
        """A new attempt, with its metadata. Raises AioRpcError."""
        with as_aio_failure():
            token, sent = await self._token(attempts.remaining(), metadata)
            key = await self._key(method, attempts.remaining(), sent)
            return seal.Exchange(method, key, token, self._recipients.kind), sent

    async def _token(self, timeout: float | None, metadata: Any) -> tuple[Token, tuple[tuple[str, Any], ...]]:
        sent = tuple(metadata or ())
        own = next((str(value) for key, value in sent if key == AUTHORIZATION), None)
        if own is not None:
            return parse(own.removeprefix("Bearer "), time.time()), sent
        if self._source is None:
            raise errors.Unauthenticated("a sealed call needs a token", reason="TOKEN_UNAVAILABLE")
        token = await self._source.get(timeout)
        return token, (*sent, (AUTHORIZATION, f"Bearer {token.value}"))

    async def _key(self, method: seal.Method, timeout: float | None, metadata: Any) -> codec.PublicKey:
        """The key to seal to; lists the keys where that has to be done again. One task does, the others wait."""
        keys = self._recipients.of(method.path)
        longest = _LIST_SECONDS if timeout is None else min(timeout, _LIST_SECONDS)
        try:
            async with asyncio.timeout(longest), self._lock:
                if (key := keys.current()) is not None:
                    return key
                request = sealed_pb2.ListSealingKeysRequest()
                listed = await self._listing.ListSealingKeys(request, timeout=longest, metadata=metadata)
                return keys.take(listed.keys)
        except TimeoutError:
            raise errors.DeadlineExceeded("the gateway's keys did not come in time") from None

    def pause(self, error: grpc.RpcError, key: codec.PublicKey, attempts: Attempts | None) -> float:
        """Seconds to wait before another attempt at a call that ended with `error`. Raises `error` if there is none."""
        reason = explain(error)
        if reason.reason == "SEAL_KEY_UNKNOWN":
            self._recipients.forget(key)
        pause = None if attempts is None else attempts.next(reason)
        if pause is None:
            raise error
        return pause
