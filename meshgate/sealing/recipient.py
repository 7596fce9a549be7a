"""A service as the recipient of sealed calls: what its callers sealed to it, the gateway relays and never reads.

The gateway has authenticated the caller and checked the envelope's header against its policy. This module opens the
envelope and checks its content against the header. It then calls the service's own method in this process. So a method
is written once and knows nothing of seals. Usage goes back in the clear, in trailers and beside the last segment.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from pydantic import Field

from meshgate import errors
from meshgate.rpc import metadata
from meshgate.runtime.config import ConfigPath, Strict
from meshgate.runtime.refresher import Refresher
from meshgate.sealing import codec, key_renewal
from meshgate.sealing.keyring import Keyring
from meshgate.v1 import sealed_pb2, sealed_pb2_grpc

_MODELS: Final = "meshgate.v1.ModelService"
"""Methods that carry no content, and need no seal."""


class SealingConfig(Strict):
    """The sealing section of a recipient."""

    keys: ConfigPath
    """The directory of its keys; made when missing, owner-only."""
    window_seconds: float = Field(120.0, gt=0, le=3600)
    """How far an envelope's time may be from ours; envelopes are remembered that long, so that none is used twice."""
    replay_capacity: int = Field(200_000, ge=1, le=10_000_000)
    """The most envelopes that a process remembers, shared or not; beyond it its sealed calls are refused."""


class Registrar:
    """A server that notes the methods registered with it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.methods: dict[str, Any] = {}
        """Full method name, `/package.Service/Method`, to handler."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As generated code calls it."""
        self.methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})
        server: Any = self._server  # the stubs lack it
        server.add_registered_method_handlers(service, handlers)


def serve(config: SealingConfig, services: Sequence[str], registrar: Registrar) -> Refresher:
    """Adds SealedService and KeyService for the methods of `services` that are registered. Returns what keeps their
    keys renewed, for the caller to start and stop. Raises ConfigError.
    """
    recipients = [name for name in services if name != _MODELS]
    methods = {path: made for path, made in registrar.methods.items() if path.split("/")[1] in recipients}
    keyring = Keyring(config.keys, _now_ms, config.key_of("keys"))
    server: Any = registrar
    sealed_pb2_grpc.add_SealedServiceServicer_to_server(SealedCalls(config, keyring, methods), server)
    sealed_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(keyring, recipients), server)
    return key_renewal.refresher(keyring)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class KeyServicer(sealed_pb2_grpc.KeyServiceServicer):
    """KeyService of one recipient."""

    def __init__(self, keyring: Keyring, recipients: Sequence[str]) -> None:
        """`recipients` are full service names."""
        self._keyring = keyring
        self._recipients = recipients

    async def ListSealingKeys(
        self, request: sealed_pb2.ListSealingKeysRequest, context: Any
    ) -> sealed_pb2.ListSealingKeysResponse:
        """The keys to seal to. Makes new ones when it is time."""
        if request.recipient not in sealed_pb2.SealingRecipient.values():
            raise errors.InvalidArgument.of("recipient", "must be a recipient that this version knows")
        if request.recipient == sealed_pb2.SEALING_RECIPIENT_GATEWAY:
            return sealed_pb2.ListSealingKeysResponse()
        keys = [key for name in self._recipients for key in self._keyring.published(name)]
        return sealed_pb2.ListSealingKeysResponse(keys=keys)


class SealedCalls(sealed_pb2_grpc.SealedServiceServicer):
    """SealedService of one service."""

    def __init__(
        self,
        config: SealingConfig,
        keyring: Keyring,
        methods: Mapping[str, Any],
        now_ms: Callable[[], int] = _now_ms,
    ) -> None:
        """`methods` is full method name to handler."""
        self._keyring = keyring
        self._methods = methods
        self._now_ms = now_ms
        self._window_ms = int(config.window_seconds * 1000)
        self._replays = codec.ReplayCache(self._window_ms, config.replay_capacity)

    async def Call(self, request: sealed_pb2.CallRequest, context: Any) -> sealed_pb2.CallResponse:
        """A unary method."""
        opened, handler = self._open(request.envelope, context)
        if handler.unary_unary is None:
            raise errors.InvalidArgument.of("envelope.header.method", "Call is for unary methods")
        inner = Inner(context)
        reply = await handler.unary_unary(_first(opened, handler), inner)
        segment = opened.session.seal_response(handler.response_serializer(reply), last=True)
        return sealed_pb2.CallResponse(segment=segment, usage=inner.usage)

    async def CallStream(
        self, request_iterator: AsyncIterator[sealed_pb2.CallStreamRequest], context: Any
    ) -> AsyncIterator[sealed_pb2.CallStreamResponse]:
        """A streaming method: every reply a segment, and a last one without a message that says it was all."""
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("envelope"):
            raise errors.InvalidArgument.of("envelope", "required in the first message")
        if first.HasField("segment"):
            raise errors.InvalidArgument.of("segment", "must not be in the first message, which has the envelope alone")
        opened, handler = self._open(first.envelope, context)
        if not handler.response_streaming:
            raise errors.InvalidArgument.of("envelope.header.method", "CallStream is for streaming methods")
        inner = Inner(context)
        if handler.request_streaming:
            replies = handler.stream_stream(_requests(opened, handler, request_iterator), inner)
        else:
            if await anext(request_iterator, None) is not None:
                raise errors.InvalidArgument("a call of this method has one request message", reason="MALFORMED")
            replies = handler.unary_stream(_first(opened, handler), inner)
        try:
            async for reply in replies:
                segment = opened.session.seal_response(handler.response_serializer(reply))
                yield sealed_pb2.CallStreamResponse(segment=segment)
        finally:
            await replies.aclose()
        last = opened.session.seal_response(None, last=True)
        yield sealed_pb2.CallStreamResponse(segment=last, usage=inner.usage)

    def _open(self, envelope: sealed_pb2.Envelope, context: Any) -> tuple[codec.Opened, Any]:
        """The sealed request, and its method. Raises InvalidArgument with a SEAL_ reason."""
        caller = dict(context.invocation_metadata() or ())
        tenant = str(caller.get(metadata.TENANT, ""))
        subject = metadata.subject_of(caller.get(metadata.SUBJECT, b""))
        now = self._now_ms()
        opened = codec.open_envelope(
            self._keyring.find, envelope, tenant=tenant, subject=subject, now_ms=now, window_ms=self._window_ms
        )
        self._replays.admit(codec.used_by(envelope, tenant, subject), now)
        codec.check_fields(opened.header)
        if opened.header.recipient != sealed_pb2.SEALING_RECIPIENT_SERVICE:
            raise errors.InvalidArgument.of("envelope.header.recipient", "must be the service")
        handler = self._methods.get(opened.header.method)
        if handler is None:
            raise errors.InvalidArgument.of("envelope.header.method", "not a method of this service")
        return opened, handler


class Inner:
    """The context of the method inside: that of the sealed call, with the usage noted for the seal."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.usage = sealed_pb2.SealedUsage()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Passes on, and reads the usage in it."""
        used = metadata.usage_of(trailing_metadata)
        self.usage = sealed_pb2.SealedUsage(input_tokens=used.input_tokens, output_tokens=used.output_tokens)
        self._context.set_trailing_metadata(trailing_metadata)


def _first(opened: codec.Opened, handler: Any) -> Any:
    """The request inside, held to what the header said of it: that is what policy has passed."""
    request = _parsed(handler, opened.message)
    inner = getattr(request, "request", request)
    if str(getattr(inner, "model", "")) != opened.header.model:
        raise errors.InvalidArgument.of("envelope.header.model", "must be the model that the request inside names")
    zero_shot = "candidate_labels" in type(inner).DESCRIPTOR.fields_by_name and inner.HasField("candidate_labels")
    if zero_shot and not opened.header.model:
        raise unnamed_zero_shot()
    return request


_UNNAMED: Final = (
    "a sealed zero-shot request must name its model: the one that ListModels lists with CAPABILITY_ZERO_SHOT, "
    "`zero-shot` unless configured otherwise"
)


def unnamed_zero_shot() -> errors.InvalidArgument:
    """A sealed zero-shot request that names no model: its default is another one than that which policy and limits were
    asked about, because what is zero-shot only shows inside.
    """
    return errors.InvalidArgument.of("model", _UNNAMED)


async def _requests(opened: codec.Opened, handler: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """All requests of a streaming client. A stream that ends without its last segment was cut."""
    yield _first(opened, handler)
    async for message in rest:
        if message.HasField("envelope"):
            raise errors.InvalidArgument.of("envelope", "must be in the first message alone")
        data = opened.session.open_request(message.segment)
        if data is not None:
            yield _parsed(handler, data)
    opened.session.close()


def _parsed(handler: Any, data: bytes) -> Any:
    try:
        return handler.request_deserializer(data)
    except DecodeError:
        raise errors.InvalidArgument("the message is not valid protobuf", reason="MALFORMED") from None
