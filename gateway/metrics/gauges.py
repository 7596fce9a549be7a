"""Gauges and counters of the gateway's parts, read from them when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from gateway.audit import AuditLog
from gateway.authentication import Authenticator
from gateway.limits import RateLimiter
from meshgate.runtime.metrics_server import Gauges
from meshgate.runtime.refresher import SourceState


class Inside(Protocol):
    """The numbers of an admission gate: see gateway.edge.concurrency.AdmissionGate."""

    inside: int
    turned_away: int


def of_audit(readings: Gauges, log: AuditLog) -> None:
    """The health and the queue of each audit sink. While a required sink is unhealthy, calls are refused."""
    readings.gauge(
        "meshgate_gateway_audit_sink_up",
        "Whether the sink took the last that it was given",
        lambda: {queue.options.name: float(queue.healthy) for queue in log.queues},
        "sink",
    )
    readings.gauge(
        "meshgate_gateway_audit_waiting_records",
        "Records not yet written",
        lambda: {queue.options.name: queue.waiting for queue in log.queues},
        "sink",
    )
    readings.counter(
        "meshgate_gateway_audit_lost_records_total",
        "Records that the sink did not get",
        lambda: {queue.options.name: queue.lost for queue in log.queues},
        "sink",
    )


def of_sources(readings: Gauges, authenticator: Authenticator) -> None:
    """How old keys and revocations are, and how often looking for news failed."""
    readings.gauge(
        "meshgate_gateway_source_age_seconds",
        "Time since keys or revocations were last seen",
        lambda: {state.name: state.age_seconds for state in authenticator.sources()},
        "source",
    )
    readings.counter(
        "meshgate_gateway_source_failures_total",
        "Looks at keys or revocations that failed",
        lambda: {state.name: state.failures for state in authenticator.sources()},
        "source",
    )


def of_refreshers(readings: Gauges, states: Callable[[], Iterable[SourceState]]) -> None:
    """The age of everything that the gateway refreshes: TLS files, keys and revocations."""
    readings.gauge(
        "meshgate_gateway_refresh_age_seconds",
        "Time since TLS files, keys or revocations were last refreshed with success",
        lambda: {state.name: state.age_seconds for state in states()},
        "source",
    )


def of_limits(readings: Gauges, limits: RateLimiter) -> None:
    """The events of the store's outages: `down`, `up`, `denied`, `local` and `lost`. It is up while down equals up."""
    readings.counter(
        "meshgate_gateway_limit_store_events_total",
        "How often the store of limits went down or came up, and decisions without it",
        lambda: {name: limits.counts[name] for name in ("down", "up", "denied", "local", "lost")},
        "event",
    )
    readings.gauge(
        "meshgate_gateway_limit_store_up",
        "Whether limits are decided with the store",
        lambda: float(limits.counts["down"] <= limits.counts["up"]),
    )


def of_backends(readings: Gauges, serving: Callable[[], Mapping[str, bool]]) -> None:
    """Which services answer."""
    readings.gauge(
        "meshgate_gateway_backend_up",
        "Whether the service answers",
        lambda: {name: float(up) for name, up in serving().items()},
        "backend",
    )


def of_doors(readings: Gauges, doors: Mapping[str, Inside]) -> None:
    """The calls in each admission gate, and those that it rejected."""
    readings.gauge(
        "meshgate_gateway_inside_calls",
        "Calls inside a door",
        lambda: {name: door.inside for name, door in doors.items()},
        "door",
    )
    readings.counter(
        "meshgate_gateway_turned_away_calls_total",
        "Calls that found no room at a door",
        lambda: {name: door.turned_away for name, door in doors.items()},
        "door",
    )


def of_names(readings: Gauges, counts: Callable[[], Mapping[str, float]]) -> None:
    """Names of models in the configuration that apply to nothing: see gateway.authorisation.references."""
    readings.gauge(
        "meshgate_gateway_unmatched_names",
        "Names of models in policy and limits that apply to no model as they stand",
        counts,
        "kind",
    )


def of_floods(readings: Gauges, summed: Callable[[], int]) -> None:
    """Refusals that the audit tells in sums: see gateway.audit.refusal_aggregator."""
    readings.counter(
        "meshgate_gateway_summed_refusals_total",
        "Refusals that have no audit record of their own",
        lambda: float(summed()),
    )


def of_patience(readings: Gauges, ended: Callable[[], Mapping[str, int]]) -> None:
    """Callers who were not waited for any longer, by what they were slow at."""
    readings.counter(
        "meshgate_gateway_slow_callers_total",
        "Calls ended because the caller read or wrote too slowly",
        lambda: {name: float(count) for name, count in ended().items()},
        "at",
    )
