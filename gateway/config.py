"""The gateway's configuration: one section a stage, each owned by its stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, ValidationError, model_validator

from gateway.audit import AuditConfig
from gateway.audit.refusal_aggregator import RefusalAggregatorConfig
from gateway.authentication import IssuerConfig, RevocationConfig
from gateway.authorisation import references
from gateway.authorisation.policy import PolicyConfig
from gateway.forwarding.backend import BackendConfig
from gateway.limits import LimitsConfig
from gateway.metrics.call_metrics import GatewayMetricsConfig
from gateway.redis_client import StoreConfig
from meshgate.rpc import channel, tls
from meshgate.rpc import targets as rpc_targets
from meshgate.rpc.listen_address import Listen
from meshgate.runtime.config import ConfigError, Strict
from meshgate.runtime.config.problems import problems
from meshgate.sealing.recipient import SealingConfig
from meshgate.services import SERVICES

_MAX_WORKERS: Final = 64


class EdgeConfig(Strict):
    """Where callers reach the gateway, and what one of them may do to it."""

    listen: Listen = "127.0.0.1:8443"
    """host:port, [IPv6]:port or unix:/path."""
    tls: tls.TlsConfig
    max_message_bytes: int = Field(channel.MAX_MESSAGE_BYTES, ge=1024, le=256 * 1024 * 1024)
    """The largest message of a caller; a larger one is refused with MESSAGE_TOO_LARGE."""
    max_metadata_bytes: int = Field(channel.MAX_METADATA_BYTES, ge=4096, le=1024 * 1024)
    """Of one call, each entry counting 32 bytes more than its name and value (RFC 9113 section 6.5.2)."""
    max_connections: int = Field(10_000, ge=1, le=1_000_000)
    """Of this process; one more is closed before its handshake."""
    max_streams_per_connection: int = Field(1000, ge=1, le=100_000)
    """Calls of one connection at once; those beyond wait at the caller's."""
    max_calls: int = Field(5000, ge=1, le=1_000_000)
    """Calls of this process at once; one more is told OVERLOADED."""
    max_strangers: int = Field(500, ge=1, le=1_000_000)
    """Of these, calls at once whose principal is not known."""
    max_watchers: int = Field(1000, ge=1, le=1_000_000)
    """Calls at once that last without a token: watchers of health and users of reflection."""
    max_watchers_per_address: int = Field(100, ge=1, le=1_000_000)
    """How many of these one network address can have: an IPv4 address or an IPv6 /64."""
    handshake_seconds: float = Field(10.0, ge=0.1, le=120)
    """How long TLS and the first frame of HTTP/2 may take."""
    first_message_seconds: float = Field(30.0, ge=0.1, le=600)
    """How long a call may take to send its first message."""
    silent_writer_seconds: float = Field(300.0, ge=0.1, le=86_400)
    """How long it may take to send each later one."""
    slow_reader_seconds: float = Field(30.0, ge=0.1, le=3600)
    """How long a caller may leave a reply unread."""
    min_ping_seconds: float = Field(10.0, ge=0.1, le=3600)
    """The least time between pings of a connection without calls; one that pings more often is closed."""
    max_connection_idle_seconds: int = Field(900, ge=1, le=86_400)
    """A connection without calls is closed after this."""
    max_connection_age_seconds: int = Field(3600, ge=1, le=86_400)
    """So that callers come back through the balancer now and then."""
    drain_seconds: float = Field(20.0, ge=0, le=600)
    """How long calls in flight may go on after SIGTERM, before they are cut."""
    reflection: bool = False
    """Whether grpc.reflection is served; it tells anyone the contract."""


class GatewayConfig(Strict):
    """All of it."""

    server: EdgeConfig
    mesh: tls.TlsConfig
    """As whom the gateway speaks to services."""
    backends: Mapping[str, BackendConfig]
    issuers: tuple[IssuerConfig, ...] = Field(min_length=1)
    revocation: RevocationConfig | None = None
    """Which tokens and subjects are no longer believed; without it all are until they expire."""
    policy: PolicyConfig
    limits: LimitsConfig
    audit: AuditConfig
    sealing: SealingConfig
    flood: RefusalAggregatorConfig = RefusalAggregatorConfig()
    metrics: GatewayMetricsConfig = GatewayMetricsConfig()
    store: StoreConfig | None = None
    """What workers and replicas share; without it each process is on its own."""
    workers: int = Field(1, ge=1, le=_MAX_WORKERS)
    """Processes that share the port, each with a core's worth of Python. More than one need a store."""

    @model_validator(mode="after")
    def _known_backends(self) -> Self:
        if unknown := set(self.backends) - set(SERVICES):
            raise ValueError(f"backends: unknown: {', '.join(sorted(unknown))}; known: {', '.join(SERVICES)}")
        return self

    @model_validator(mode="after")
    def _references(self) -> Self:
        references.check_methods(self.policy)
        references.check_scopes(self.issuers, self.policy)
        tables = {"policy.tenants": self.policy.tenants, "limits.tenants": self.limits.tenants}
        references.check_tenants(self.issuers, {**tables, "metrics.tenants": self.metrics.tenants})
        return self

    @model_validator(mode="after")
    def _workers_share(self) -> Self:
        if self.workers > 1 and self.store is None:
            raise ValueError("workers: more than one need a [store], or limits would not be exact")
        if self.limits.replicas > 1 and self.store is None:
            raise ValueError("limits.replicas: more than one need a [store], or each would have the limits to itself")
        return self

    @model_validator(mode="after")
    def _revocations_stored(self) -> Self:
        if self.revocation is not None and self.revocation.store and self.store is None:
            raise ValueError("revocation.store: the [store] section is missing")
        return self

    def check_startable(self) -> None:
        """Raises ConfigError for what can be read and explained, and not be served."""
        if faults := list(references.check_defaults(self.policy)):
            raise ConfigError("\n".join(faults))

    def with_overrides(
        self, listen: str | None, targets: Mapping[str, str], *, workers: int | None = None, store: str | None = None
    ) -> GatewayConfig:
        """The same with another address to listen on, other places of backends and of the store, and so many workers.

        Raises ConfigError, naming the flag of `python -m gateway` that is wrong.
        """
        if unknown := set(targets) - set(self.backends):
            raise ConfigError(f"--backend: unknown: {', '.join(sorted(unknown))}; known: {', '.join(self.backends)}")
        _check_targets(targets)
        server = self.server.model_copy(update={"listen": listen or self.server.listen})
        moved = {
            name: backend.model_copy(update={"target": targets.get(name, backend.target)})
            for name, backend in self.backends.items()
        }
        made = self.model_copy(update={"server": server, "backends": moved})
        return made._with_workers(self.workers if workers is None else workers, store)  # noqa: SLF001 - its own class

    def _with_workers(self, workers: int, url: str | None) -> GatewayConfig:
        if not 1 <= workers <= _MAX_WORKERS:
            raise ConfigError(f"--workers: from 1 to {_MAX_WORKERS}, and {workers} is not")
        store = self.store if url is None else _store(url)
        if workers > 1 and store is None:
            raise ConfigError("--workers: more than one need a store: [store] in the file, or --store")
        return self.model_copy(update={"workers": workers, "store": store})


def _check_targets(targets: Mapping[str, str]) -> None:
    for name, target in targets.items():
        try:
            rpc_targets.check(target)
        except ValueError as error:
            raise ConfigError(f"--backend: {name}={target}: what stands after = {error}") from None


def _store(url: str) -> StoreConfig:
    try:
        return StoreConfig.model_validate({"url": url})
    except ValidationError as error:
        raise ConfigError(f"--store: {problems(error, StoreConfig)[0].removeprefix('url: ')}") from None
