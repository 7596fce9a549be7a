"""The seal stage: opens what callers sealed to the gateway, and seals what they get back. A plain call passes through.

What comes out is an `Exchange`: the request in the clear, and how to treat every later message of the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from gateway import intent
from gateway.call import Call
from gateway.intent import Intent
from gateway.keyring import Keyring
from gateway.principal import Principal
from gateway.routes import Route
from meshgate import errors, sealing
from meshgate.runtime.config import Strict
from meshgate.v1 import sealed_pb2


class SealingConfig(Strict):
    """The sealing section."""

    keys: Path
    """The directory of the gateway's sealing keys; made when missing, owner-only."""
    window_seconds: float = Field(120.0, gt=0, le=3600)
    """How far an envelope's time may be from ours; envelopes are remembered that long, so that none is used twice."""
    replay_capacity: int = Field(200_000, ge=1, le=10_000_000)
    """The most envelopes remembered; beyond it sealed calls are refused."""


class Exchange(Protocol):
    """How the messages of one call are treated."""

    @property
    def inner(self) -> Intent:
        """The request in the clear."""

    def unseal(self, message: bytes | None) -> bytes | None:
        """A later request message in the clear; None, given or returned, is the end of the requests."""

    def seal(self, reply: bytes) -> bytes | None:
        """What the caller gets for a reply; None to keep it back."""

    def finish(self, call: Call) -> bytes | None:
        """What the caller gets after the last reply, if anything."""


class Plain:
    """A call in the clear: everything as it is."""

    def __init__(self, wanted: Intent) -> None:
        self.inner = wanted

    def unseal(self, message: bytes | None) -> bytes | None:
        return message

    def seal(self, reply: bytes) -> bytes | None:
        return reply

    def finish(self, call: Call) -> bytes | None:
        return None


class SealedUnary:
    """SealedService.Call: one reply, sealed with the usage beside it, which is known only at the end."""

    def __init__(self, inner: Intent, session: sealing.RecipientSession) -> None:
        self.inner = inner
        self._session = session
        self._reply: bytes | None = None

    def unseal(self, message: bytes | None) -> bytes | None:
        raise sealing.invalid()

    def seal(self, reply: bytes) -> bytes | None:
        self._reply = reply
        return None

    def finish(self, call: Call) -> bytes | None:
        segment = self._session.seal_response(self._reply, last=True)
        return sealed_pb2.CallResponse(segment=segment, usage=_usage(call)).SerializeToString()


class SealedStream:
    """SealedService.CallStream: every reply a segment, and a last one without a message that says it was all."""

    def __init__(self, inner: Intent, session: sealing.RecipientSession) -> None:
        self.inner = inner
        self._session = session

    def unseal(self, message: bytes | None) -> bytes | None:
        """The request in a later message. A stream that ends without its last segment was cut."""
        if message is None:
            self._session.close()
            return None
        outer: Any = intent.parse(sealed_pb2.CallStreamRequest, message)
        return self._session.open_request(outer.segment)

    def seal(self, reply: bytes) -> bytes | None:
        segment = self._session.seal_response(reply)
        return sealed_pb2.CallStreamResponse(segment=segment).SerializeToString()

    def finish(self, call: Call) -> bytes | None:
        segment = self._session.seal_response(None, last=True)
        return sealed_pb2.CallStreamResponse(segment=segment, usage=_usage(call)).SerializeToString()


def _usage(call: Call) -> sealed_pb2.SealedUsage:
    return sealed_pb2.SealedUsage(input_tokens=call.input_tokens, output_tokens=call.output_tokens)


class Opener:
    """The stage."""

    def __init__(self, config: SealingConfig, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._window_ms = int(config.window_seconds * 1000)
        self._keyring = Keyring(config.keys, now_ms)
        self._replays = sealing.ReplayCache(self._window_ms, config.replay_capacity)
        self.published = self._keyring.published

    def open(self, call: Call, principal: Principal, wanted: Intent) -> Exchange:
        """The request in the clear. Raises InvalidArgument with a SEAL_ reason for an envelope that does not open."""
        if wanted.envelope is None or wanted.header is None:
            return Plain(wanted)
        call.sealing_key_id = wanted.header.key_id[:64]
        if wanted.header.recipient != sealed_pb2.SEALING_RECIPIENT_GATEWAY:
            raise errors.Unimplemented("only the gateway can be the recipient", reason="FEATURE_UNAVAILABLE")
        now = self._now_ms()
        opened = sealing.open_envelope(
            self._keyring.find,
            wanted.envelope,
            tenant=principal.tenant,
            subject=principal.subject,
            now_ms=now,
            window_ms=self._window_ms,
        )
        self._replays.admit(opened.header, now)
        return _exchange(wanted.route, opened, wanted.model)


def _exchange(route: Route, opened: sealing.Opened, model: str) -> Exchange:
    inner = intent.read(route, opened.message)
    if inner.model != model:
        raise errors.InvalidArgument.of("envelope.header.model", "must be the model that the request inside names")
    kind = SealedStream if route.client_streams or route.server_streams else SealedUnary
    return kind(inner, opened.session)
