"""The gateway's parts and their order: audit starts first, then backends, then the server. They stop in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection

from gateway import limits, redis_client
from gateway.audit import AuditLog
from gateway.audit.journal import Journal
from gateway.audit.refusal_aggregator import RefusalAggregator, network
from gateway.authentication import Authenticator, revocations_of
from gateway.authorisation import references
from gateway.authorisation.policy import Policy
from gateway.authorisation.reference_watch import ReferenceWatch
from gateway.config import EdgeConfig, GatewayConfig
from gateway.edge.concurrency import ConnectionAdmission
from gateway.edge.handler import EdgeHandler
from gateway.edge.open_methods import OpenMethods
from gateway.forwarding.adapter_names import AdapterNames
from gateway.forwarding.backend import Backend
from gateway.forwarding.builtin_services import BuiltinServices
from gateway.forwarding.model_catalogue import ModelCatalogue
from gateway.limits import RateLimiter
from gateway.metrics import gauges
from gateway.metrics.call_metrics import CallMetrics
from gateway.pipeline import Forwarder, Pipeline
from gateway.routes import PUBLIC_ROUTES
from gateway.sealing.replay_cache import RedisReplayCache, ReplayCache
from gateway.sealing.stage import SealStage
from meshgate.rpc import channel, health, server
from meshgate.rpc.health import NOT_SERVING, SERVING, Health
from meshgate.rpc.private import shield
from meshgate.runtime.metrics_server import Gauges, MetricsServer
from meshgate.runtime.refresher import SourceState
from meshgate.services import GATEWAY, SERVICES

_log = logging.getLogger(__name__)

_RECEIVED: Final = 2
"""gRPC itself receives messages of twice the size, so that one that is somewhat too large is refused by us: with a
reason, a request id and a record."""

_MEET_SECONDS: Final = 2.0
_TELL_SECONDS: Final = 5.0
"""More than it takes to end calls that go on when the gateway stops."""


class Gateway:
    """One gateway. `port` is the bound one once `start` returns."""

    def __init__(self, config: GatewayConfig, worker: int | None = None) -> None:
        """`worker` is its number among those that share the port. Raises ConfigError."""
        config.check_startable()
        self.port = 0
        self._config = config
        self._worker = worker
        self._unmet = set(config.backends)
        self._unreached = set(config.backends)
        self._met = asyncio.Event()
        self._entrance = ConnectionAdmission(config.server.max_calls, config.server.max_strangers)
        self._open_methods = OpenMethods(config.server, self._entrance)
        self._health = Health(self._open_methods.watchers, self._open_methods.read, network)
        self._backends = {name: Backend(name, section, config.mesh) for name, section in config.backends.items()}
        self._names = ReferenceWatch(config.policy, config.limits)
        self._catalogue = ModelCatalogue(self._backends, self._announce, self._listed)
        self._audit = AuditLog(config.audit, writer="" if worker is None else f"worker-{worker}")
        self._store = None if config.store is None else redis_client.connect(config.store)
        prefix = "" if config.store is None else config.store.prefix
        revoked = revocations_of(config.revocation, self._store, prefix)
        self._authenticator = Authenticator(config.issuers, revocations=revoked)
        self._limits = self._limited()
        self._telemetry = CallMetrics(config.metrics)
        self._flood = RefusalAggregator(config.flood, lambda: time.time_ns() // 1000)
        self._journal = Journal(self._audit, self._flood, self._telemetry)
        self.exposition = MetricsServer(config.metrics, self._telemetry, self._readings(), worker=worker or 0)
        self._opener = SealStage(config.sealing, self._replays())
        self._edge = EdgeHandler(self._build(), config.server)
        self._server: grpc.aio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    def _build(self) -> Pipeline:
        policy = Policy(self._config.policy)
        adapters = AdapterNames(self._backends)
        local: Forwarder = BuiltinServices(
            self._catalogue, policy, adapters, lambda: [*self._opener.published(), *self._catalogue.sealing_keys()]
        )
        return Pipeline(
            journal=self._journal,
            entrance=self._entrance,
            authenticator=self._authenticator,
            policy=policy,
            catalogue=self._catalogue,
            limits=self._limits,
            opener=self._opener,
            forwarders={GATEWAY: local, **self._backends},
            max_message_bytes=self._config.server.max_message_bytes,
        )

    def _limited(self) -> RateLimiter:
        config, models, most = self._config, self._catalogue.models, self._config.server.max_calls
        if config.store is None or self._store is None:
            return RateLimiter(config.limits, models=models, max_calls=most)
        return limits.connected(
            config.limits, config.store, self._store, workers=config.workers, models=models, max_calls=most
        )

    def _replays(self) -> ReplayCache | None:
        config = self._config
        if config.store is None or self._store is None:
            return None
        window_ms = int(config.sealing.window_seconds * 1000)
        capacity, timeout = config.sealing.replay_capacity, config.store.timeout_seconds
        return RedisReplayCache(self._store, config.store.prefix, window_ms, capacity, timeout)

    def _readings(self) -> Gauges:
        made = Gauges()
        gauges.of_audit(made, self._audit)
        gauges.of_sources(made, self._authenticator)
        gauges.of_refreshers(made, self._refreshed)
        gauges.of_limits(made, self._limits)
        doors = {"calls": self._entrance.calls, "strangers": self._entrance.strangers}
        gauges.of_doors(made, {**doors, "watchers": self._open_methods.watchers})
        gauges.of_names(made, self._names.counts)
        gauges.of_floods(made, lambda: self._flood.summed)
        gauges.of_patience(made, lambda: self._edge.lost_patience)
        gauges.of_backends(made, lambda: {name: name not in self._unreached for name in self._backends})
        return made

    def _refreshed(self) -> list[SourceState]:
        tls_files = [backend.refresher.state() for backend in self._backends.values()]
        return [*tls_files, self._opener.refreshed(), *self._audit.refreshed(), *self._authenticator.sources()]

    def _listed(self) -> None:
        """Names of models are what the services say now."""
        listed = self._catalogue.listed()
        self._limits.set_aliases(references.aliases(listed))
        if self._catalogue.complete:
            self._names.look(listed)

    async def start(self) -> None:
        """Serves from here on. Raises ConfigError for a busy port, unreadable certificates or a broken audit log."""
        await self.exposition.start()
        await self._audit.start()
        await self._authenticator.start()
        self._opener.start()
        edge = self._config.server
        options = _options(edge, shared=self._worker is not None)
        made = shield.server(options, around=self._open_methods.around, unknown=self._edge)
        shield.register(made, self._edge, PUBLIC_ROUTES)
        shield.register(made, self._health, health.PATHS)
        if edge.reflection:
            names = sorted({route.service for route in PUBLIC_ROUTES.values()})
            reflection.enable_server_reflection(names, made)
        for name in SERVICES:
            await self._announce(name, False)
        for backend in self._backends.values():
            backend.refresher.start()
        self._watch = asyncio.create_task(self._catalogue.watch())
        await self._meet()
        self.port = server.bind(made, edge.listen, edge.tls)
        await made.start()
        self._server = made
        await self._health.set("", SERVING)
        _log.info("serving", extra={"listen": edge.listen, "port": self.port})

    async def stop(self) -> None:
        """Says NOT_SERVING, lets calls finish for the configured time, and leaves nothing behind."""
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._drain(self._server, self._config.server.drain_seconds)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
        self._edge.stop()
        self._open_methods.stop()
        await self._opener.stop()
        await self._limits.stop()
        self._journal.stop()
        await self._audit.stop()
        await self._authenticator.stop()
        await self.exposition.stop()
        if self._store is not None:
            await self._store.aclose()

    async def _drain(self, running: grpc.aio.Server, seconds: float) -> None:
        """Lets calls finish for so long, then ends them: gRPC would tell their callers nothing that they could test."""
        stopping = asyncio.create_task(running.stop(seconds + _TELL_SECONDS))
        await asyncio.wait((stopping,), timeout=seconds)
        await self._edge.drain()
        await running.stop(0)
        await stopping

    async def _meet(self) -> None:
        """Keeps a worker from the port until it knows the services: the others have what it would only refuse."""
        if self._worker is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._met.wait(), _MEET_SECONDS)

    async def _announce(self, backend: str, serving: bool) -> None:
        if serving:
            self._unmet.discard(backend)
            self._unreached.discard(backend)
        else:
            self._unreached.add(backend)
        if not self._unmet:
            self._met.set()
        await self._health.set(SERVICES[backend].full_name, SERVING if serving else NOT_SERVING)


def _options(edge: EdgeConfig, *, shared: bool) -> channel.Options:
    return (
        ("grpc.so_reuseport", int(shared)),  # these before the server's own: gRPC takes the first of two
        ("grpc.server_handshake_timeout_ms", int(edge.handshake_seconds * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(edge.min_ping_seconds * 1000)),
        *server.backlog(max(server.BACKLOG, 2 * edge.max_calls)),
        *server.server_options(_RECEIVED * edge.max_message_bytes, edge.max_metadata_bytes),
        ("grpc.max_allowed_incoming_connections", edge.max_connections),
        ("grpc.max_concurrent_streams", edge.max_streams_per_connection),
        ("grpc.max_connection_idle_ms", edge.max_connection_idle_seconds * 1000),
        ("grpc.max_connection_age_ms", edge.max_connection_age_seconds * 1000),
        ("grpc.max_connection_age_grace_ms", int(edge.drain_seconds * 1000)),
    )
