"""The parts of a request that decisions need: the method, the model, and the most tokens.

A message is parsed once, here, and its original bytes are what travels on.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from google.protobuf.message import DecodeError, Message

from gateway.routes import MODEL_ROUTES, SEALED_ROUTES, Route
from meshgate import errors
from meshgate.rpc.call import compression
from meshgate.sealing import codec
from meshgate.v1 import sealed_pb2

_MAX_NAME_BYTES: Final = 256


class RequestInfo(NamedTuple):
    """The request of a caller, as far as policy is concerned."""

    route: Route
    """The method that does the work."""
    model: str
    """The model as the caller names it; empty for the default."""
    zero_shot: bool
    """Whether the default meant is that of zero-shot classification."""
    first: bytes
    """The first message, as it came."""
    message: Message
    """The same, parsed."""
    envelope: sealed_pb2.Envelope | None = None
    header: sealed_pb2.EnvelopeHeader | None = None


def read(route: Route, first: bytes) -> RequestInfo:
    """Reads the first message of a call of `route`. Raises InvalidArgument for what can't be read."""
    if route.path in SEALED_ROUTES:
        return _read_sealed(route, first)
    message = parse(route.request_type, first)
    model, zero_shot = asked_model(message)
    return RequestInfo(route, model, zero_shot, first, message)


def asked_model(message: Message) -> tuple[str, bool]:
    """The model that a request names, and whether it is a zero-shot request."""
    fields = message.DESCRIPTOR.fields_by_name
    # Requests of streams hold the unary request in one field.
    inner: Any = getattr(message, "request", message) if "request" in fields else message
    model = str(getattr(inner, "model", ""))
    if len(model.encode()) > _MAX_NAME_BYTES:
        raise errors.InvalidArgument.of("model", f"must be at most {_MAX_NAME_BYTES} bytes")
    names = type(inner).DESCRIPTOR.fields_by_name
    return model, "candidate_labels" in names and inner.HasField("candidate_labels")


def parse(kind: type[Message], data: bytes) -> Message:
    """Parses a message. Raises InvalidArgument (MALFORMED), and Unimplemented (COMPRESSED) for a compressed one."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise compression.unreadable(data) from None


def _read_sealed(route: Route, first: bytes) -> RequestInfo:
    outer = cast(Any, parse(route.request_type, first))
    if not outer.HasField("envelope"):
        raise errors.InvalidArgument.of("envelope", "required in the first message")
    if route.client_streams and outer.HasField("segment"):
        raise errors.InvalidArgument.of("segment", "must not be in the first message, which has the envelope alone")
    envelope: sealed_pb2.Envelope = outer.envelope
    header = cast(sealed_pb2.EnvelopeHeader, parse(sealed_pb2.EnvelopeHeader, envelope.header))
    inner = MODEL_ROUTES.get(header.method)
    if inner is None:
        raise errors.InvalidArgument.of("envelope.header.method", "not a method that can be sealed")
    if (inner.client_streams or inner.server_streams) != route.server_streams:
        raise errors.InvalidArgument.of("envelope.header.method", "Call is for unary methods, CallStream for streaming")
    codec.check_fields(header)
    return RequestInfo(inner, header.model, False, first, outer, envelope, header)
