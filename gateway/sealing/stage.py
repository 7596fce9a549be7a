"""The seal stage: opens what callers sealed to the gateway, and seals what they get back. A plain call passes through,
and so does what is sealed to a service, of which only the header can be read here.

The result is a `MessageCodec`: the request in the clear, and how to treat every later message of the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from gateway import request_info
from gateway.call import Call
from gateway.principal import Principal
from gateway.request_info import RequestInfo
from gateway.routes import PUBLIC_ROUTES, Route, relay_of
from gateway.sealing.replay_cache import ProcessReplayCache, ReplayCache
from meshgate import errors
from meshgate.runtime.refresher import SourceState
from meshgate.sealing import codec, key_renewal
from meshgate.sealing.keyring import Keyring
from meshgate.sealing.recipient import SealingConfig, unnamed_zero_shot
from meshgate.v1 import sealed_pb2


class MessageCodec(Protocol):
    """How the messages of one call are treated."""

    @property
    def inner(self) -> RequestInfo:
        """The request in the clear."""

    def unseal(self, message: bytes | None) -> bytes | None:
        """A later request message in the clear; None, given or returned, is the end of the requests."""

    def seal(self, reply: bytes) -> bytes | None:
        """The message to the caller for a reply; None to keep it back."""

    def finish(self, call: Call) -> bytes | None:
        """The message to the caller after the last reply, if any."""


class PlainCodec:
    """A call in the clear: everything as it is."""

    def __init__(self, wanted: RequestInfo) -> None:
        self.inner = wanted

    def unseal(self, message: bytes | None) -> bytes | None:
        return message

    def seal(self, reply: bytes) -> bytes | None:
        return reply

    def finish(self, call: Call) -> bytes | None:
        return None


class RelayedCodec(PlainCodec):
    """A call sealed to a service: what is said goes by as it is, to that service's own SealedService."""

    def __init__(self, wanted: RequestInfo, sealed: Route) -> None:
        super().__init__(wanted._replace(route=relay_of(wanted.route, sealed)))


class SealedUnaryCodec:
    """SealedService.Call: one reply, sealed with the usage beside it, which is known only at the end."""

    def __init__(self, inner: RequestInfo, session: codec.RecipientSession) -> None:
        self.inner = inner
        self._session = session
        self._reply: bytes | None = None

    def unseal(self, message: bytes | None) -> bytes | None:
        raise codec.invalid()

    def seal(self, reply: bytes) -> bytes | None:
        self._reply = reply
        return None

    def finish(self, call: Call) -> bytes | None:
        segment = self._session.seal_response(self._reply, last=True)
        return sealed_pb2.CallResponse(segment=segment, usage=_usage(call)).SerializeToString()


class SealedStreamCodec:
    """SealedService.CallStream: every reply a segment, and a last one without a message that says it was all."""

    def __init__(self, inner: RequestInfo, session: codec.RecipientSession) -> None:
        self.inner = inner
        self._session = session

    def unseal(self, message: bytes | None) -> bytes | None:
        """The request in a later message. A stream that ends without its last segment was cut."""
        if message is None:
            self._session.close()
            return None
        outer: Any = request_info.parse(sealed_pb2.CallStreamRequest, message)
        if outer.HasField("envelope"):
            raise errors.InvalidArgument.of("envelope", "must be in the first message alone")
        return self._session.open_request(outer.segment)

    def seal(self, reply: bytes) -> bytes | None:
        segment = self._session.seal_response(reply)
        return sealed_pb2.CallStreamResponse(segment=segment).SerializeToString()

    def finish(self, call: Call) -> bytes | None:
        segment = self._session.seal_response(None, last=True)
        return sealed_pb2.CallStreamResponse(segment=segment, usage=_usage(call)).SerializeToString()


def _usage(call: Call) -> sealed_pb2.SealedUsage:
    return sealed_pb2.SealedUsage(input_tokens=call.input_tokens, output_tokens=call.output_tokens)


class SealStage:
    """The stage."""

    def __init__(
        self,
        config: SealingConfig,
        replays: ReplayCache | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Without `replays` envelopes are remembered by this process alone."""
        self._now_ms = now_ms
        self._window_ms = int(config.window_seconds * 1000)
        self._keyring = Keyring(config.keys, now_ms, config.key_of("keys"))
        self._replays = replays or ProcessReplayCache(self._window_ms, config.replay_capacity)
        self.published = self._keyring.published
        self._key_refresher = key_renewal.refresher(self._keyring)

    def start(self) -> None:
        """Keeps the keys renewed from here on. Needs a running event loop."""
        self._key_refresher.start()

    def refreshed(self) -> SourceState:
        """The freshness of the keyring, for metrics."""
        return self._key_refresher.state()

    async def stop(self) -> None:
        """Leaves no task."""
        await self._key_refresher.stop()

    async def open(self, call: Call, principal: Principal, wanted: RequestInfo) -> MessageCodec:
        """The request in the clear, or what can be known of it where a service is the recipient.

        Raises InvalidArgument with a SEAL_ reason for an envelope that does not open or was used before.
        """
        if wanted.envelope is None or wanted.header is None:
            return PlainCodec(wanted)
        call.sealing_key_id = wanted.header.key_id[:64]
        match wanted.header.recipient:
            case sealed_pb2.SEALING_RECIPIENT_GATEWAY:
                return await self._opened(principal, wanted, wanted.envelope)
            case sealed_pb2.SEALING_RECIPIENT_SERVICE:
                return await self._relayed(call, principal, wanted, wanted.envelope)
        raise errors.InvalidArgument.of("envelope.header.recipient", "the gateway or the service")

    async def _opened(self, principal: Principal, wanted: RequestInfo, envelope: sealed_pb2.Envelope) -> MessageCodec:
        now = self._now_ms()
        opened = codec.open_envelope(
            self._keyring.find,
            envelope,
            tenant=principal.tenant,
            subject=principal.subject,
            now_ms=now,
            window_ms=self._window_ms,
        )
        await self._replays.admit(codec.used_by(envelope, principal.tenant, principal.subject), now)
        return _exchange(wanted.route, opened, wanted.model)

    async def _relayed(
        self, call: Call, principal: Principal, wanted: RequestInfo, envelope: sealed_pb2.Envelope
    ) -> MessageCodec:
        """The service checks all of this again; here it keeps an envelope that one replica of the service has seen from
        another.
        """
        now = self._now_ms()
        header: Any = wanted.header
        codec.check_header(header, principal.tenant, principal.subject, now, self._window_ms)
        await self._replays.admit(codec.used_by(envelope, principal.tenant, principal.subject), now)
        call.relayed = True
        return RelayedCodec(wanted, PUBLIC_ROUTES[call.method])


def _exchange(route: Route, opened: codec.Opened, model: str) -> MessageCodec:
    inner = request_info.read(route, opened.message)
    if inner.model != model:
        raise errors.InvalidArgument.of("envelope.header.model", "must be the model that the request inside names")
    if inner.zero_shot and not model:
        raise unnamed_zero_shot()
    kind = SealedStreamCodec if route.client_streams or route.server_streams else SealedUnaryCodec
    return kind(inner, opened.session)
