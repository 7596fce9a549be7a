# Generated from meshgate/client/aio/caller.py by `make sdk`. Change that file, not this one.
"""What the sealed calls of a channel share: the keys to seal to, the token, the retry policy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import grpc

from meshgate import errors
from meshgate.client import seal
from meshgate.client.blocking.token_source import TokenSource
from meshgate.client.blocking.transport import Lock, as_failure, each, next_reply, sleep, unary, within
from meshgate.client.failure import explain
from meshgate.client.keys import Recipients
from meshgate.client.options import retry_policy
from meshgate.client.retry import Attempts, Throttle
from meshgate.client.token_cache import Token, parse
from meshgate.rpc.channel import EOF
from meshgate.rpc.metadata import AUTHORIZATION
from meshgate.sealing import codec
from meshgate.v1 import sealed_pb2, sealed_pb2_grpc

_LIST_SECONDS: Final = 10.0


class Caller:
    """One for a channel; it may be called from wherever the channel may."""

    def __init__(self, channel: grpc.Channel, source: TokenSource | None, recipients: Recipients) -> None:
        self.sealed: Any = sealed_pb2_grpc.SealedServiceStub(channel)
        self._listing: Any = sealed_pb2_grpc.KeyServiceStub(channel)
        self._source = source
        self._recipients = recipients
        self._lock = Lock()
        self._policy = retry_policy()
        self._throttle = Throttle(self._policy)

    def attempts(self, timeout: float | None) -> Attempts:
        """The attempts at a new call."""
        return Attempts(self._policy, self._throttle, timeout)

    def begin(
        self, method: seal.Method, attempts: Attempts, metadata: Any
    ) -> tuple[seal.Exchange, tuple[tuple[str, Any], ...]]:
        """A new attempt, with its metadata. Raises the SDK's failure, or what listing the keys ended with."""
        with as_failure():
            token, sent = self._token(attempts.remaining(), metadata)
            key = self._key(method, attempts.remaining(), sent)
            return seal.Exchange(method, key, token, self._recipients.kind), sent

    def answer(
        self, method: seal.Method, request: Any, timeout: float | None, metadata: Any, settings: Any
    ) -> tuple[Any, Any]:
        """Makes attempts at a unary call until one is answered or none is left. Returns the reply and gRPC's call."""
        attempts = self.attempts(timeout)
        while True:
            exchange, sent = self.begin(method, attempts, metadata)
            try:
                with as_failure():
                    given = {"timeout": attempts.remaining(), "metadata": sent, **settings}
                    reply, call = unary(self.sealed.Call, exchange.seal_unary(request), **given)
                    attempts.succeeded()
                    return exchange.open_unary(reply), call
            except grpc.RpcError as error:
                sleep(self.pause(error, exchange.key, attempts))

    def _token(self, timeout: float | None, metadata: Any) -> tuple[Token, tuple[tuple[str, Any], ...]]:
        """The token of a call, and its metadata with that token in it. Raises Unauthenticated."""
        sent = tuple(metadata or ())
        own = next((str(value) for key, value in sent if key == AUTHORIZATION), None)
        if own is not None:
            return parse(own.removeprefix("Bearer "), time.time()), sent
        if self._source is None:
            raise errors.Unauthenticated("a sealed call needs a token", reason="TOKEN_UNAVAILABLE")
        token = self._source.get(timeout)
        return token, (*sent, (AUTHORIZATION, f"Bearer {token.value}"))

    def _key(self, method: seal.Method, timeout: float | None, metadata: Any) -> codec.PublicKey:
        """The key to seal to; lists the keys where that has to be done again. One caller does, the others wait."""
        keys = self._recipients.of(method.path)
        longest = _LIST_SECONDS if timeout is None else min(timeout, _LIST_SECONDS)
        try:
            with within(longest), self._lock:
                if (key := keys.current()) is not None:
                    return key
                request = sealed_pb2.ListSealingKeysRequest()
                listed = self._listing.ListSealingKeys(request, timeout=longest, metadata=metadata)
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


def sealed_requests(exchange: seal.Exchange, requests: Any) -> Iterator[sealed_pb2.CallStreamRequest]:
    """Seals requests as gRPC takes them. Replies come only after the envelope."""
    for request in each(requests):
        yield exchange.seal_next(request)
    if (end := exchange.seal_end()) is not None:
        yield end


def next_opened(exchange: seal.Exchange, call: Any) -> Any:
    """The next reply of a stream, opened, or EOF. Raises Internal where replies don't open or are incomplete."""
    while (reply := next_reply(call)) is not EOF:
        if (opened := exchange.open_next(reply.segment)) is not None:
            return opened[0]
    exchange.close()
    return EOF
