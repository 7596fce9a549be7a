"""What a sealed call is made of, for blocking and asyncio channels alike: which calls, whose, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from meshgate import errors
from meshgate.client.options import SEALED_SERVICE
from meshgate.client.token_cache import Token
from meshgate.sealing import codec
from meshgate.v1 import sealed_pb2

_TEMPLATE: Final = 1024
"""Tokens that a chat template may put before a conversation."""
_TURN: Final = 16
"""And around each turn."""
_DEFAULT_OUTPUT: Final = 256
"""GenerateRequest.max_output_tokens, where it is left out."""
_IN_THE_CLEAR: Final = frozenset(
    {
        SEALED_SERVICE,
        "meshgate.v1.KeyService",
        "meshgate.v1.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)


def is_sealed(method: str) -> bool:
    """Whether a sealed channel seals calls of `/package.Service/Method`. All, but for those that carry no content."""
    return method.rpartition("/")[0].lstrip("/") not in _IN_THE_CLEAR


def now_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def unsealable(method: str) -> errors.Unimplemented:
    """What a method raises that has no sealed form. It must not go in the clear instead."""
    return errors.Unimplemented(f"{method} has no sealed form", reason="METHOD_UNSEALABLE")


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a generated stub."""

    path: str
    serialise: Callable[[Any], bytes] | None
    deserialise: Callable[[bytes], Any] | None

    def to_bytes(self, request: Any) -> bytes:
        """The request serialised."""
        data: bytes = request if self.serialise is None else self.serialise(request)
        return data

    def from_bytes(self, reply: bytes) -> Any:
        """The reply deserialised."""
        return reply if self.deserialise is None else self.deserialise(reply)


def method(
    path: str, request_serializer: Any = None, response_deserializer: Any = None, _registered_method: bool = False
) -> Method:
    """A method, as generated stubs describe it to a channel."""
    return Method(path, request_serializer, response_deserializer)


def settings(
    credentials: grpc.CallCredentials | None = None,
    wait_for_ready: bool | None = None,
    compression: grpc.Compression | None = None,
) -> dict[str, Any]:
    """What else a call may be given, by position or name, in gRPC's order."""
    return {"credentials": credentials, "wait_for_ready": wait_for_ready, "compression": compression}


class Exchange:
    """The messages of one attempt at a sealed call, both ways. The next needs its own: an envelope opens once."""

    def __init__(
        self,
        method: Method,
        key: codec.PublicKey,
        token: Token,
        recipient: sealed_pb2.SealingRecipient.ValueType = sealed_pb2.SEALING_RECIPIENT_GATEWAY,
    ) -> None:
        """`recipient` is whose key it is."""
        self.key = key
        self._recipient = recipient
        self._method = method
        self._token = token
        self._session: codec.SenderSession | None = None

    def seal_unary(self, request: Any) -> sealed_pb2.CallRequest:
        """The request of a unary call. Raises Unauthenticated for a token that names nobody."""
        return sealed_pb2.CallRequest(envelope=self._envelope(request))

    def seal_next(self, request: Any) -> sealed_pb2.CallStreamRequest:
        """The next request of a streaming call: the envelope, then segments. Raises as `seal_unary` does."""
        if self._session is None:
            return sealed_pb2.CallStreamRequest(envelope=self._envelope(request))
        return sealed_pb2.CallStreamRequest(segment=self._session.seal_request(self._method.to_bytes(request)))

    def seal_end(self) -> sealed_pb2.CallStreamRequest | None:
        """The end of a client's stream; None where it had no requests, and so no envelope to belong to."""
        if self._session is None:
            return None
        return sealed_pb2.CallStreamRequest(segment=self._session.seal_request(None, last=True))

    def open_unary(self, reply: sealed_pb2.CallResponse) -> Any:
        """The reply of a unary call. Raises Internal (SEAL_INVALID, SEAL_TRUNCATED)."""
        opened = self.open_next(reply.segment)
        self.close()
        if opened is None:
            raise _truncated()
        return opened[0]

    def open_next(self, segment: sealed_pb2.Segment) -> tuple[Any] | None:
        """The next reply of a stream, in a tuple; None for an end without one. Raises Internal (SEAL_INVALID)."""
        with _as_internal(errors.Internal("the reply does not open", reason="SEAL_INVALID")):
            message = self._opened().open_response(segment)
        return None if message is None else (self._method.from_bytes(message),)

    def close(self) -> None:
        """Checks, where a call ended well, that its replies are complete. Raises Internal (SEAL_TRUNCATED)."""
        with _as_internal(_truncated()):
            self._opened().close()

    def _opened(self) -> codec.SenderSession:
        if self._session is None:
            raise codec.invalid()
        return self._session

    def _envelope(self, request: Any) -> sealed_pb2.Envelope:
        token = self._token
        if not token.tenant or not token.subject:
            raise errors.Unauthenticated(
                "sealed calls need a JWT with the claims tenant and sub", reason="TOKEN_UNREADABLE"
            )
        envelope, self._session = codec.seal_request(
            self.key,
            self._method.to_bytes(request),
            method=self._method.path,
            model=_model(request),
            tenant=token.tenant,
            subject=token.subject,
            now_ms=now_ms(),
            token_cap=_cap(request) if self._recipient == sealed_pb2.SEALING_RECIPIENT_SERVICE else None,
            recipient=self._recipient,
        )
        return envelope


def _truncated() -> errors.Internal:
    """What replies that end before their last segment raise, whatever the status."""
    return errors.Internal("the reply was cut off", reason="SEAL_TRUNCATED")


@contextmanager
def _as_internal(renamed: errors.Internal) -> Iterator[None]:
    """A reply that does not open is no fault of the caller's argument."""
    try:
        yield
    except errors.InvalidArgument:
        raise renamed from None


def _model(request: Any) -> str:
    """The model that a request names, as the gateway reads it: requests of streams hold the unary request."""
    inner = getattr(request, "request", request)
    return str(getattr(inner, "model", ""))


def _cap(request: Any) -> int:
    """The most tokens that a call may take whose body the gateway can't read: for a generation a bound of its text, of
    what a chat template adds and of its output; for the others the most there is, for their size bounds them.
    """
    inner: Any = getattr(request, "request", request)
    if "max_output_tokens" not in inner.DESCRIPTOR.fields_by_name:
        return codec.MOST_TOKENS
    text: int = inner.ByteSize() + _TEMPLATE + _TURN * len(inner.conversation.messages)
    output: int = (inner.candidate_count or 1) * (inner.max_output_tokens or _DEFAULT_OUTPUT)
    return min(codec.MOST_TOKENS, text + output)
