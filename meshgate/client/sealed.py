"""A synchronous channel whose calls of models are sealed. Stubs use it as any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from meshgate.client.sealing import KEY_UNKNOWN, KEYS_TIMEOUT, Sealer, opened, seals
from meshgate.runtime import status
from meshgate.sealing import PublicKey, SenderSession
from meshgate.v1 import sealed_pb2, sealed_pb2_grpc

Serialise = Callable[[Any], bytes]
Deserialise = Callable[[bytes], Any]


class SealedChannel(grpc.Channel):
    """Seals what goes to models over `plain`; everything else passes."""

    def __init__(self, plain: grpc.Channel, sealer: Sealer) -> None:
        self._plain = plain
        self._calls = _Calls(plain, sealer)

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not seals(method):
            return self._plain.unary_unary(method, request_serializer, response_deserializer)
        return _UnaryUnary(self._calls, method, request_serializer, response_deserializer)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not seals(method):
            return self._plain.unary_stream(method, request_serializer, response_deserializer)
        return _Streaming(self._calls, method, request_serializer, response_deserializer, one_request=True)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        return self._plain.stream_unary(method, request_serializer, response_deserializer)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not seals(method):
            return self._plain.stream_stream(method, request_serializer, response_deserializer)
        return _Streaming(self._calls, method, request_serializer, response_deserializer, one_request=False)

    def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
        self._plain.subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Any) -> None:
        self._plain.unsubscribe(callback)

    def close(self) -> None:
        self._plain.close()

    def __enter__(self) -> SealedChannel:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> bool | None:
        self.close()
        return None


class _Calls:
    """The sealed service on a channel, and the key to seal to."""

    def __init__(self, plain: grpc.Channel, sealer: Sealer) -> None:
        self.sealer = sealer
        self.stub: Any = sealed_pb2_grpc.SealedServiceStub(plain)
        self._keys: Any = sealed_pb2_grpc.KeyServiceStub(plain)

    def key(self) -> PublicKey:
        known = self.sealer.key()
        if known is not None:
            return known
        return self.sealer.take(self._keys.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), timeout=KEYS_TIMEOUT))

    def unknown(self, error: Any) -> bool:
        """Whether a call failed because its key is gone; the next one then asks for keys."""
        gone = isinstance(error, grpc.Call) and status.from_rpc_error(error).reason == KEY_UNKNOWN
        if gone:
            self.sealer.forget()
        return gone


class _UnaryUnary(grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]  # generic in the stubs alone
    def __init__(self, calls: _Calls, method: str, serialise: Serialise, deserialise: Deserialise) -> None:
        self._calls = calls
        self._method = method
        self._serialise = serialise
        self._deserialise = deserialise

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return self.with_call(request, *args, **kwargs)[0]

    def with_call(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._once(request, args, kwargs)
        except grpc.RpcError as error:
            if not self._calls.unknown(error):
                raise
        return self._once(request, args, kwargs)

    def future(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        sealed, session = self._seal(request)
        inner = self._calls.stub.Call.future(sealed, *args, **kwargs)
        return _Future(inner, lambda reply: self._deserialise(opened(session, reply)))

    def _once(self, request: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        sealed, session = self._seal(request)
        reply, call = self._calls.stub.Call.with_call(sealed, *args, **kwargs)
        return self._deserialise(opened(session, reply)), call

    def _seal(self, request: Any) -> tuple[sealed_pb2.CallRequest, SenderSession]:
        key = self._calls.key()
        envelope, session = self._calls.sealer.seal(key, self._method, request, self._serialise(request))
        return sealed_pb2.CallRequest(envelope=envelope), session


class _Delegate:
    """Everything of a call that sealing does not change."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Future(_Delegate):
    """A call under way whose result is opened once."""

    def __init__(self, inner: Any, finish: Callable[[Any], Any]) -> None:
        super().__init__(inner)
        self._finish = finish
        self._results: list[Any] = []

    def result(self, timeout: float | None = None) -> Any:
        """The response, opened. Raises grpc.RpcError, or InvalidArgument for what does not open."""
        if not self._results:
            self._results.append(self._finish(self._inner.result(timeout)))
        return self._results[0]

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Calls `fn` with this object."""
        self._inner.add_done_callback(lambda _: fn(self))


class _Streaming:
    """A multi-callable of a method whose server streams."""

    def __init__(
        self, calls: _Calls, method: str, serialise: Serialise, deserialise: Deserialise, *, one_request: bool
    ) -> None:
        self._calls = calls
        self._method = method
        self._serialise = serialise
        self._deserialise = deserialise
        self._one_request = one_request

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> _Stream:
        requests = iter((request,)) if self._one_request else iter(request)
        first = next(requests, None)
        if first is None:
            raise ValueError("a sealed stream needs a first request")
        key = self._calls.key()
        envelope, session = self._calls.sealer.seal(key, self._method, first, self._serialise(first))
        sent = self._requests(envelope, session, () if self._one_request else requests)
        return _Stream(self._calls, self._calls.stub.CallStream(sent, *args, **kwargs), session, self._deserialise)

    def _requests(
        self, envelope: sealed_pb2.Envelope, session: SenderSession, rest: Iterable[Any]
    ) -> Iterator[sealed_pb2.CallStreamRequest]:
        yield sealed_pb2.CallStreamRequest(envelope=envelope)
        if self._one_request:
            return
        for request in rest:
            yield sealed_pb2.CallStreamRequest(segment=session.seal_request(self._serialise(request)))
        yield sealed_pb2.CallStreamRequest(segment=session.seal_request(None, last=True))


class _Stream(_Delegate):
    """A streaming call whose responses are opened as they come."""

    def __init__(self, calls: _Calls, inner: Any, session: SenderSession, deserialise: Deserialise) -> None:
        super().__init__(inner)
        self._calls = calls
        self._session = session
        self._deserialise = deserialise

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        """The next response. Raises InvalidArgument (SEAL_INVALID) for one that does not open or a stream cut short."""
        for reply in self._replies():
            message = self._session.open_response(reply.segment)
            if message is not None:
                return self._deserialise(message)
        self._session.close()
        raise StopIteration

    def _replies(self) -> Iterator[Any]:
        try:
            yield from self._inner
        except grpc.RpcError as error:
            self._calls.unknown(error)
            raise
