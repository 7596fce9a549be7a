"""A blocking channel whose calls are sealed: the stubs' calls in, SealedService's calls out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from meshgate import errors, sealing
from meshgate.client import seal
from meshgate.client.blocking.calls import SealedFuture, SealedStream
from meshgate.client.failure import as_call_failed, explain
from meshgate.client.keys import KeyCache
from meshgate.client.options import retry_policy
from meshgate.client.retry import Attempts, Throttle
from meshgate.client.token import Token, TokenSource, parse
from meshgate.runtime.metadata import AUTHORIZATION
from meshgate.v1 import sealed_pb2, sealed_pb2_grpc

_LIST_SECONDS: Final = 10.0


class SealedChannel(grpc.Channel):
    """Looks like any channel. Methods without content go in the clear, those without a sealed form not at all."""

    def __init__(self, channel: grpc.Channel, source: TokenSource | None, pinned: frozenset[bytes]) -> None:
        self._channel: Any = channel
        self._caller = Caller(channel, source, pinned)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if not seal.is_sealed(method):
            return self._channel.unary_unary(method, *args, **kwargs)
        return _UnaryUnary(self._caller, _method(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if not seal.is_sealed(method):
            return self._channel.unary_stream(method, *args, **kwargs)
        return _UnaryStream(self._caller, _method(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if not seal.is_sealed(method):
            return self._channel.stream_unary(method, *args, **kwargs)
        raise seal.unsealable(method)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if not seal.is_sealed(method):
            return self._channel.stream_stream(method, *args, **kwargs)
        return _StreamStream(self._caller, _method(method, *args, **kwargs))

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> SealedChannel:
        return self

    def __exit__(self, *_: object) -> bool:
        self.close()
        return False


def _method(
    path: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
) -> seal.Method:
    return seal.Method(path, request_serializer, response_deserializer)


class Caller:
    """What the sealed calls of a channel share: the gateway's key, the token, the retry policy."""

    def __init__(self, channel: grpc.Channel, source: TokenSource | None, pinned: frozenset[bytes]) -> None:
        self.sealed: Any = sealed_pb2_grpc.SealedServiceStub(channel)
        self._listing: Any = sealed_pb2_grpc.KeyServiceStub(channel)
        self._source = source
        self._keys = KeyCache(pinned, seal.now_ms)
        self._lock = threading.Lock()
        self._policy = retry_policy()
        self._throttle = Throttle(self._policy)

    def attempts(self, timeout: float | None) -> Attempts:
        """The attempts at a new call."""
        return Attempts(self._policy, self._throttle, timeout)

    def token(self, metadata: Any) -> tuple[Token, tuple[tuple[str, Any], ...]]:
        """The token of a call, and its metadata with that token in it. Raises Unauthenticated."""
        sent = tuple(metadata or ())
        own = next((str(value) for key, value in sent if key == AUTHORIZATION), None)
        if own is not None:
            return parse(own.removeprefix("Bearer "), time.time()), sent
        if self._source is None:
            raise errors.Unauthenticated("a sealed call needs a token", reason="TOKEN_UNAVAILABLE")
        token = self._source.get()
        return token, (*sent, (AUTHORIZATION, f"Bearer {token.value}"))

    def key(self, timeout: float | None, metadata: Any) -> sealing.PublicKey:
        """The key to seal to; lists the keys where that has to be done again. One thread does, the others wait."""
        with self._lock:
            if (key := self._keys.current()) is not None:
                return key
            longest = _LIST_SECONDS if timeout is None else min(timeout, _LIST_SECONDS)
            request = sealed_pb2.ListSealingKeysRequest()
            return self._keys.take(self._listing.ListSealingKeys(request, timeout=longest, metadata=metadata).keys)

    def retry(self, attempts: Attempts, error: grpc.RpcError, key: sealing.PublicKey | None) -> None:
        """Returns when it is time for another attempt. Raises `error` where there is none."""
        reason = explain(error)
        if reason.reason == "SEAL_KEY_UNKNOWN":
            self._keys.forget(key)
        pause = attempts.next(reason)
        if pause is None:
            raise error
        time.sleep(pause)


class _UnaryUnary(grpc.UnaryUnaryMultiCallable):
    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **rest: Any) -> Any:
        return self.with_call(request, timeout, metadata, **rest)[0]

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **rest: Any
    ) -> tuple[Any, grpc.Call]:
        attempts = self._caller.attempts(timeout)
        while True:
            sealed = _Sealed(self._caller, self._method)
            try:
                with as_call_failed():
                    sealed.prepare(attempts.remaining(), metadata)
                    call_request, session = sealed.first(request)
                    reply, call = self._caller.sealed.Call.with_call(
                        call_request, timeout=attempts.remaining(), metadata=sealed.metadata, **rest
                    )
                    attempts.succeeded()
                    return self._method.open_unary(session, reply), call
            except grpc.RpcError as error:
                self._caller.retry(attempts, error, sealed.key)

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, **rest: Any) -> Any:
        """As gRPC's, but that it looks for the token and the key before it returns, and makes one attempt."""
        sealed = _Sealed(self._caller, self._method)
        with as_call_failed():
            sealed.prepare(timeout, metadata)
            call_request, session = sealed.first(request)
        call = self._caller.sealed.Call.future(call_request, timeout=timeout, metadata=sealed.metadata, **rest)
        return SealedFuture(call, lambda reply: self._method.open_unary(session, reply))


class _Sealed:
    """One attempt at a call: its token, its key, its envelope."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method
        self._token: Token | None = None
        self.key: sealing.PublicKey | None = None
        self.metadata: Any = None
        self.session: sealing.SenderSession | None = None

    def prepare(self, timeout: float | None, metadata: Any) -> None:
        """Gets token and key."""
        self._token, self.metadata = self._caller.token(metadata)
        self.key = self._caller.key(timeout, self.metadata[-1:] if metadata is None else self.metadata)

    def first(self, request: Any) -> tuple[sealed_pb2.CallRequest, sealing.SenderSession]:
        """The envelope of a call's first request."""
        assert self.key is not None  # noqa: S101 - prepared before
        assert self._token is not None  # noqa: S101 - prepared before
        envelope, self.session = self._method.seal(self.key, self._token, request)
        return sealed_pb2.CallRequest(envelope=envelope), self.session

    def requests(self, requests: Iterator[Any], *, client_streams: bool) -> Iterator[sealed_pb2.CallStreamRequest]:
        """The messages of a streaming call. gRPC takes them on a thread of its own."""
        for request in requests:
            if self.session is None:
                yield sealed_pb2.CallStreamRequest(envelope=self.first(request)[0].envelope)
            else:
                segment = self.session.seal_request(self._method.to_bytes(request))
                yield sealed_pb2.CallStreamRequest(segment=segment)
        if client_streams and self.session is not None:
            yield sealed_pb2.CallStreamRequest(segment=self.session.seal_request(None, last=True))


class _UnaryStream(grpc.UnaryStreamMultiCallable):
    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **rest: Any) -> Any:
        attempts = self._caller.attempts(timeout)
        sealed = _Sealed(self._caller, self._method)

        def begin() -> tuple[Any, Callable[[], sealing.SenderSession | None]]:
            nonlocal sealed
            sealed = attempt = _Sealed(self._caller, self._method)
            attempt.prepare(attempts.remaining(), metadata)
            messages = list(attempt.requests(iter([request]), client_streams=False))
            call = self._caller.sealed.CallStream(
                iter(messages), timeout=attempts.remaining(), metadata=attempt.metadata, **rest
            )
            return call, lambda: attempt.session

        def again(error: grpc.RpcError) -> None:
            self._caller.retry(attempts, error, sealed.key)

        return SealedStream(begin, self._method.from_bytes, again, attempts.succeeded)


class _StreamStream(grpc.StreamStreamMultiCallable):
    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self, request_iterator: Iterator[Any], timeout: float | None = None, metadata: Any = None, **rest: Any
    ) -> Any:
        """Requests that were taken from the iterator are gone, so such a call is made once."""
        sealed = _Sealed(self._caller, self._method)

        def begin() -> tuple[Any, Callable[[], sealing.SenderSession | None]]:
            sealed.prepare(timeout, metadata)
            messages = sealed.requests(iter(request_iterator), client_streams=True)
            call = self._caller.sealed.CallStream(messages, timeout=timeout, metadata=sealed.metadata, **rest)
            return call, lambda: sealed.session

        def never(error: grpc.RpcError) -> None:
            self._caller.forget_if_unknown(error, sealed.key)
            raise error

        return SealedStream(begin, self._method.from_bytes, never, lambda: None)
