"""How a Meshgate service lives: listen, load, serve, drain, leave.

It listens before its model is loaded, so that health says NOT_SERVING instead of nothing at all; it says NOT_SERVING
again before it drains, so that balancers turn away first. A failed model ends the process: a supervisor starts a clean
one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

import grpc
from pydantic import Field, field_validator

from meshgate.rpc import channel, contract, guard, health, listen_address, orca, tls
from meshgate.rpc.call import compression
from meshgate.rpc.health import NOT_SERVING, SERVING, Health
from meshgate.rpc.listen_address import Listen
from meshgate.rpc.private import shield
from meshgate.runtime.config import ConfigError, Strict
from meshgate.runtime.refresher import Refresher
from meshgate.sealing import recipient
from meshgate.sealing.recipient import Registrar, SealingConfig

_log = logging.getLogger(__name__)


BACKLOG: Final = 10_000
"""Calls of one method that gRPC keeps until the server takes them. With gRPC's default of 1,000 to 3,000 it would
cancel calls of any caller, without a reason, a record or a limit."""


def backlog(calls: int) -> channel.Options:
    """gRPC's options for a server that keeps so many calls of one method until it takes them."""
    return (("grpc.server.max_pending_requests", calls), ("grpc.server.max_pending_requests_hard_limit", calls))


class ServerConfig(Strict):
    """Where a process listens, as whom, and for whom."""

    listen: Listen = "127.0.0.1:0"
    """host:port, [IPv6]:port or unix:/path."""
    tls: tls.TlsConfig
    peers: Mapping[str, Sequence[str]] = Field(default_factory=dict)
    """Method pattern to the SPIFFE IDs that may call it. A method without a pattern cannot be called."""
    sealing: SealingConfig | None = None
    """Keys of its own, so that callers can seal to the service itself; without it only the gateway is sealed to."""

    max_message_bytes: int = Field(channel.MAX_MESSAGE_BYTES, ge=1024, le=256 * 1024 * 1024)
    """The largest message of a caller, and of an answer. The gateway's own bound should not be above it."""
    max_connection_age_seconds: int = Field(600, ge=1, le=86_400)
    """The age at which a connection takes no new calls; its present calls go on. The client then resolves the
    addresses again and finds new replicas."""
    drain_seconds: float = Field(20.0, ge=0, le=600)
    """How long calls in flight may go on after SIGTERM, before they are cut."""
    start_seconds: float = Field(900.0, gt=0, le=7200)
    """How long loading may take."""

    @field_validator("peers")
    @classmethod
    def _known_methods(cls, peers: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
        for pattern, names in peers.items():
            contract.check_pattern(pattern)
            if strange := [name for name in names if not name.startswith(tls.SPIFFE)]:
                raise ValueError(
                    f"{pattern!r} is for {strange[0]!r}, which is no peer: a SPIFFE ID is spiffe://domain/path"
                )
        return peers


class Application(Protocol):
    """A service's application, as `serve` runs it."""

    name: str
    failed: asyncio.Event
    """Set when the model can't go on: the process ends, with exit status 1."""

    async def start(self) -> None:
        """Loads and warms up. Health says SERVING once it returns."""

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""

    def cpu_seconds(self) -> float:
        """The CPU seconds that it has used on all processors, its child processes included."""

    async def stop(self, grace: float) -> None:
        """Lets running calls finish for at most `grace` seconds, then cancels them; leaves no task and no thread."""


def server_options(max_message_bytes: int, max_metadata_bytes: int = channel.MAX_METADATA_BYTES) -> channel.Options:
    """gRPC options of every Meshgate server: what a peer may send, how fast, and how long it may take to begin.

    Floods of HTTP/2 itself (resets, settings, pings, endless headers) are bounded by gRPC's defaults.
    """
    return (
        *channel.UNUSED,
        *compression.OFF,
        *backlog(BACKLOG),
        ("grpc.http2.bdp_probe", 0),  # or windows grow to megabytes, which a call can fill before anyone reads it
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", max_metadata_bytes),  # between the two it would be chance
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", 10_000),  # TLS and the first SETTINGS
        ("grpc.http2.settings_timeout", 10_000),  # until our own are acknowledged, metadata may be larger
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),  # a peer that vanished is detected
        ("grpc.keepalive_timeout_ms", 20_000),
    )


class Server:
    """One gRPC server around one application. `port` is the bound one once `start` returns."""

    def __init__(self, config: ServerConfig, application: Application) -> None:
        self.port = 0
        self._config = config
        self._application = application
        self._ready = False
        self._health = Health()
        self._names: Sequence[str] = ()
        self._key_refresher: Refresher | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens, then loads the application. Raises ConfigError for a busy port or unreadable certificates."""
        await self._listen()
        await asyncio.wait_for(self._application.start(), self._config.start_seconds)
        self._ready = True
        await self._announce(SERVING)
        _log.info("serving", extra={"listen": self._config.listen, "port": self.port})

    async def stop(self) -> None:
        """Turns health off, drains, and closes."""
        self._ready = False
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            grace = self._config.drain_seconds
            await asyncio.gather(self._server.stop(grace), self._application.stop(grace))
        if self._key_refresher is not None:
            await self._key_refresher.stop()

    async def _listen(self) -> None:
        load = orca.Load(cpu_clock=self._application.cpu_seconds)
        around = guard.Guard(guard.PeerPolicy(self._config.peers), lambda: self._ready, load).wrap
        options = (
            *server_options(self._config.max_message_bytes),
            ("grpc.max_connection_age_ms", self._config.max_connection_age_seconds * 1000),
        )
        server = shield.server(options, around=around)
        registrar = Registrar(server)
        self._names = self._application.register(cast("grpc.aio.Server", registrar))
        if self._config.sealing is not None:
            self._key_refresher = recipient.serve(self._config.sealing, self._names, registrar)
            self._key_refresher.start()
        shield.register(server, self._health, health.PATHS)
        await self._announce(NOT_SERVING)
        self.port = bind(server, self._config.listen, self._config.tls)
        await server.start()
        self._server = server

    async def _announce(self, state: Any) -> None:
        for name in ("", *self._names):
            await self._health.set(name, state)


def bind(server: grpc.aio.Server, listen: str, config: tls.TlsConfig) -> int:
    """Binds to `listen` with TLS and returns the port. Raises ConfigError, saying which address or which file."""
    credentials = tls.server_credentials(config)
    try:
        return server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ConfigError(f"server.listen: {listen_address.unusable(listen)}") from error


async def serve(config: ServerConfig, application: Application) -> int:
    """Runs until SIGTERM or SIGINT, or until the application fails. Returns the exit status."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = Server(config, application)
    waits = {asyncio.ensure_future(event.wait()) for event in (stopping, application.failed)}
    starting = asyncio.ensure_future(server.start())
    try:
        await asyncio.wait({starting, *waits}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (starting, *waits):
            task.cancel()
        await asyncio.gather(starting, *waits, return_exceptions=True)
        _log.info("draining", extra={"failed": application.failed.is_set()})
        await server.stop()
    return 1 if application.failed.is_set() else 0
