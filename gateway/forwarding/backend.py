"""One service as the gateway sees it: a mutual-TLS channel on which messages travel as the bytes they came in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import grpc
from pydantic import Field

from gateway.call import Call
from gateway.forwarding.message_relay import MessageRelay
from gateway.routes import Route
from meshgate import errors
from meshgate.rpc import channel, metadata, status, tls
from meshgate.rpc.balancing import BalancingConfig, service_config
from meshgate.rpc.call import hop_deadline
from meshgate.rpc.call.cancellation import caller_left
from meshgate.rpc.private import stream_status
from meshgate.rpc.private.fast_unary_client import FastUnaryClient
from meshgate.rpc.targets import Target
from meshgate.runtime.config import ConfigError
from meshgate.runtime.refresher import Refresher, SourceHealth
from meshgate.services import SERVICES
from meshgate.v1 import models_pb2, models_pb2_grpc

_log = logging.getLogger(__name__)

_TLS_SECONDS: Final = 1.0
"""The pause between two looks at the times and sizes of the TLS files."""
_GRACE_SECONDS: Final = 60.0
"""How long calls on a channel with the old certificates get to end."""


class BackendConfig(BalancingConfig):
    """Where a service is, and how its replicas share its calls."""

    target: Target = Field(min_length=1, max_length=4096)
    """A gRPC name: host:port, dns:///name:port (every address is a replica), ipv4:a:port,b:port, or unix:path."""
    server_name: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,255}$")
    """The host name that each replica's certificate must have, and no other part's. Default: the service's own,
    `generation.meshgate` and so on."""
    longest_call_seconds: float = Field(600.0, gt=0, le=86_400)
    """The deadline of calls whose caller set none."""


class Backend:
    """Forwards calls to one service. Errors it raises are MeshErrors, and never name the service's address."""

    def __init__(self, name: str, config: BackendConfig, credentials: tls.TlsConfig | None) -> None:
        """`credentials` None is in the clear: tests only."""
        self.name = name
        self.server_name = config.server_name or channel.server_name(name)
        self._config = config
        service = SERVICES[name]
        # A sealed call is never repeated: a recipient opens an envelope once.
        repeated = service_config(config, service.full_name, service.repeatable)
        self._options = channel.mesh_options(service_config=repeated, server_name=self.server_name)
        self._tls = credentials
        self._identity = tls.Identity(credentials) if credentials else None
        self._unusable: str | None = None
        """Why changed certificates could not be taken up, as last logged."""
        if self._identity is not None:
            self._identity.changed()  # what changes while it is read is read again
        self._channel: Any = self._open()  # the stubs ask for serialisers; bytes need none
        self._unaries = FastUnaryClient(self._channel)
        self._methods: dict[str, Any] = {}
        health = SourceHealth(f"TLS files, {name}")
        health.good(time.monotonic())
        self.refresher = Refresher(
            health, partial(self.refresh, _GRACE_SECONDS), _TLS_SECONDS, timeout=2 * _GRACE_SECONDS
        )
        """Looks at the TLS files again and again, once it is started; `close` stops it."""

    def _open(self) -> grpc.aio.Channel:
        if self._identity is None or self._tls is None:
            return channel.open_channel(self._config.target, None, self._options)
        return channel.open_channel(self._config.target, tls.channel_credentials(self._tls), self._options)

    async def refresh(self, grace: float) -> None:
        """Moves to a new channel when the certificates changed; calls on the old one get `grace` seconds to end."""
        opened = self._reopened()
        if opened is not None:
            old, old_unaries = self._channel, self._unaries
            self._channel, self._methods = opened, {}
            self._unaries = FastUnaryClient(self._channel)
            _log.info("certificates changed", extra={"backend": self.name})
            await _closed(old, old_unaries, grace)

    def _reopened(self) -> grpc.aio.Channel | None:
        """A channel with the certificates that changed; None where they did not, or can't be used (yet): files are
        replaced one after the other, so the old channel serves on until all of them fit together.
        """
        if self._identity is None:
            return None
        try:
            opened = self._open() if self._identity.changed() else None
            self.refresher.health.good(time.monotonic())
            return opened
        except ConfigError as error:
            self._identity.forget()
            self.refresher.health.failed(error, log=False)
            if str(error) != self._unusable:
                why = {"backend": self.name, "why": str(error)}
                _log.error("certificates can't be used; the old ones stay", extra=why)
            self._unusable = str(error)
            return None

    async def close(self) -> None:
        """Closes the channel and cancels what is on it."""
        await self.refresher.stop()
        await _closed(self._channel, self._unaries, 0)

    def stub(self, make: Callable[[grpc.aio.Channel], Any]) -> Any:
        """A generated stub on the present channel."""
        return make(self._channel)

    async def models(self, call: Call, seconds: float) -> Iterable[models_pb2.Model]:
        """The models that the service lists for the caller of `call`, within `seconds`. Raises MeshError."""
        timeout = _timeout(call, seconds)
        stub = self.stub(models_pb2_grpc.ModelServiceStub)
        try:
            reply = await stub.ListModels(models_pb2.ListModelsRequest(), timeout=timeout, metadata=_metadata(call))
        except grpc.aio.AioRpcError as error:
            raise _rename(error, self.name) from error
        listed: Iterable[models_pb2.Model] = reply.models
        return listed

    async def forward(self, call: Call, route: Route, first: bytes, passage: MessageRelay) -> None:
        """Passes on the service's replies to `first` and, where the method streams, to what `passage` reads after it.

        Cancelled, it cancels the service's work. Usage is booked on `call` at the end. Raises MeshError.
        """
        timeout = _timeout(call, self._config.longest_call_seconds)
        try:
            if route.server_streams:
                await self._stream(call, route, first, passage, timeout)
            else:
                await self._unary(call, route, first, passage, timeout)
        except grpc.aio.AioRpcError as error:
            raise _rename(error, self.name) from error
        except asyncio.CancelledError:
            if caller_left():
                raise
            raise _gone(self.name) from None  # its channel was closed: who asked is still there

    async def _unary(self, call: Call, route: Route, first: bytes, passage: MessageRelay, timeout: float) -> None:
        answer = await self._unaries.call(route.path.encode(), first, timeout, _metadata(call))
        await passage.send(answer.reply)
        call.input_tokens, call.output_tokens = metadata.usage_of(answer.trailers)

    async def _stream(self, call: Call, route: Route, first: bytes, passage: MessageRelay, timeout: float) -> None:
        pump: asyncio.Task[None] | None = None
        if route.client_streams:
            stream = stream_status.preserve_status(self._method(route)(timeout=timeout, metadata=_metadata(call)))
            pump = asyncio.create_task(_pump(stream, first, passage))
        else:
            stream = self._method(route)(first, timeout=timeout, metadata=_metadata(call))
        try:
            await _relay(stream, passage)
            await _book(call, stream)
        except (asyncio.CancelledError, grpc.aio.AioRpcError):
            # If it was the caller's side that failed, that failure is why the stream was cancelled.
            if pump is not None and pump.done() and not pump.cancelled() and (cause := pump.exception()):
                raise cause from None
            raise
        finally:
            stream.cancel()
            if pump is not None:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)

    def _method(self, route: Route) -> Any:
        """The callable of a streaming method on the present channel."""
        found = self._methods.get(route.path)
        if found is None:
            arities = {
                (False, True): self._channel.unary_stream,
                (True, True): self._channel.stream_stream,
            }
            found = self._methods[route.path] = arities[route.client_streams, route.server_streams](route.path)
        return found


async def _closed(opened: Any, unaries: FastUnaryClient, grace: float) -> None:
    """Closes a channel once its calls have ended or `grace` seconds have passed."""
    start = time.monotonic()
    await unaries.drain(grace)
    await opened.close(max(0.0, grace - (time.monotonic() - start)))


async def _relay(stream: Any, passage: MessageRelay) -> None:
    while (reply := await stream.read()) is not channel.EOF:
        await passage.send(reply)


async def _pump(stream: Any, first: bytes, passage: MessageRelay) -> None:
    """Sends what the caller sends, no faster than the service takes it."""
    try:
        message: bytes | None = first
        while message is not None:
            await stream.write(message)
            message = await passage.read()
        await stream.done_writing()
    except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
        return  # the service ended first; the reader learns why
    except BaseException:
        stream.cancel()
        raise


def _timeout(call: Call, longest: float) -> float:
    """How long a service has. Raises DeadlineExceeded where that is no time at all."""
    left = call.remaining()
    if left is None:
        return longest
    left -= hop_deadline.reserved_for_return(left)
    if left <= 0:
        raise errors.DeadlineExceeded("the deadline passed")
    return min(left, longest)


def _metadata(call: Call) -> tuple[tuple[str, str | bytes], ...]:
    tenant = call.principal.tenant if call.principal else ""
    sent: tuple[tuple[str, str | bytes], ...] = ((metadata.REQUEST_ID, call.request_id), (metadata.TENANT, tenant))
    if call.model:
        sent = (*sent, (metadata.MODEL, call.model.encode()))
    if call.token_cap:
        sent = (*sent, (metadata.TOKEN_CAP, str(call.token_cap)))
    if call.principal:
        sent = (*sent, (metadata.SUBJECT, call.principal.subject.encode()))
    return sent


async def _book(call: Call, finished: Any) -> None:
    call.input_tokens, call.output_tokens = metadata.usage_of(await finished.trailing_metadata())


def _gone(name: str) -> errors.Unavailable:
    return errors.Unavailable(f"the {name} service is not there", reason="BACKEND_UNAVAILABLE", retry_after=1.0)


def _rename(error: grpc.aio.AioRpcError, name: str) -> errors.MeshError:
    if status.has_details(error):
        return status.from_rpc_error(error)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return _gone(name)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceeded("the deadline passed")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return errors.InvalidArgument("the message is too large", reason=status.TOO_LARGE)
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.Unimplemented(f"the {name} service lacks this method", reason="METHOD_UNKNOWN")
    _log.error("service failed", extra={"backend": name, "code": error.code().name})
    return errors.Internal("internal error")
