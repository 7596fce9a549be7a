"""What a sealed call is made of, for blocking and asyncio channels alike: which calls, whose, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from meshgate import errors, sealing
from meshgate.client.options import SEALED_SERVICE
from meshgate.client.token import Token
from meshgate.v1 import sealed_pb2

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

    def seal(
        self, key: sealing.PublicKey, token: Token, request: Any
    ) -> tuple[sealed_pb2.Envelope, sealing.SenderSession]:
        """Seals a request, of a streaming client the first. Raises Unauthenticated for a token that names nobody."""
        if not token.tenant or not token.subject:
            raise errors.Unauthenticated(
                "sealed calls need a JWT with the claims tenant and sub", reason="TOKEN_UNREADABLE"
            )
        return sealing.seal_request(
            key,
            self.to_bytes(request),
            method=self.path,
            model=_model(request),
            tenant=token.tenant,
            subject=token.subject,
            now_ms=now_ms(),
        )

    def to_bytes(self, request: Any) -> bytes:
        """The request serialised."""
        data: bytes = request if self.serialise is None else self.serialise(request)
        return data

    def from_bytes(self, reply: bytes) -> Any:
        """The reply deserialised."""
        return reply if self.deserialise is None else self.deserialise(reply)

    def open_unary(self, session: sealing.SenderSession, reply: sealed_pb2.CallResponse) -> Any:
        """The reply of a unary call. Raises Internal (SEAL_INVALID, SEAL_TRUNCATED)."""
        message = open_segment(session, reply.segment)
        close(session)
        if message is None:
            raise _truncated()
        return self.from_bytes(message)


def open_segment(session: sealing.SenderSession, segment: sealed_pb2.Segment) -> bytes | None:
    """A reply's message, or None for an end without one. Raises Internal (SEAL_INVALID)."""
    with _as_internal(errors.Internal("the reply does not open", reason="SEAL_INVALID")):
        return session.open_response(segment)


def close(session: sealing.SenderSession | None) -> None:
    """Checks, where a call ended well, that its replies are complete. Raises Internal (SEAL_TRUNCATED)."""
    if session is None:
        raise _truncated()
    with _as_internal(_truncated()):
        session.close()


def _truncated() -> errors.Internal:
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
