"""How calls are spread over the replicas of a service: as gRPC's own service config, so that none of it is ours.

gRPC's core resolves the target to addresses, keeps a connection to each, asks each for its health, and picks one for
every call; Python sees none of that. This module writes its configuration, once a channel. The policies are of
gRFC A6 (retries), A17 (health), A50 (outliers) and A58 (weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from meshgate.runtime.config import Strict

ServiceConfig = dict[str, Any]

_FIRST_BACKOFF: Final = "0.02s"
"""A retry goes to another replica, so there is nothing to wait for but a connection that is just being made."""
_LONGEST_BACKOFF: Final = "0.2s"
_RETRYABLE: Final = ["UNAVAILABLE", "CANCELLED"]
"""CANCELLED is the status that a stopping server gives to calls that it has not begun (grpc/grpc#41785). A call that
the caller cancels has ended and is not tried again.
"""


class RetriesConfig(Strict):
    """Calls that their replica did not serve, by their status, are tried again before their first reply, if they are
    safe to repeat.
    """

    attempts: int = Field(3, ge=1, le=5)
    """Of one call, the first included; 1 is no retries. gRPC itself takes no more than 5."""
    throttle_tokens: int = Field(100, ge=1, le=1000)
    """A call that fails takes one; while half are gone nothing is retried, so that trouble is not made worse."""
    token_ratio: float = Field(0.1, ge=0.001, le=10)
    """The part of a token that a successful call gives back."""


class WeightsConfig(Strict):
    """The settings of weighted_round_robin, which weighs replicas by the load that they report."""

    blackout_seconds: float = Field(5.0, ge=0, le=600)
    """So long after it connected a replica counts as average, whatever it reports: it is just warming up."""
    expiry_seconds: float = Field(60.0, ge=1, le=3600)
    """A report this old says nothing any more."""
    update_seconds: float = Field(1.0, ge=0.1, le=60)
    """How often weights are worked out."""
    error_penalty: float = Field(1.0, ge=0, le=100)
    """How much each failed call counts against a replica that looks idle because it fails."""


class OutliersConfig(Strict):
    """A replica whose calls fail more than the others' gets none for a while. It needs two replicas."""

    interval_seconds: float = Field(5.0, ge=0.1, le=600)
    """How often replicas are judged, each by its calls since the last time."""
    failed_percent: int = Field(85, ge=1, le=100)
    """Of a replica's calls. Every status but OK counts, what callers did wrong too, so a low value is a lever."""
    calls: int = Field(20, ge=1, le=1_000_000)
    """A replica with fewer is not judged."""
    ejected_seconds: float = Field(30.0, ge=0.1, le=3600)
    """How long it is left out at first; longer each time, up to ten times that."""
    ejected_percent: int = Field(34, ge=1, le=100)
    """The most replicas left out at once; one always may be."""


class BalancingConfig(Strict):
    """How calls are spread over the replicas of a service."""

    policy: Literal["pick_first", "round_robin", "weighted_round_robin"] = "round_robin"
    """`weighted_round_robin` gives those that answer sooner more, by the load that they report (ORCA)."""
    health_checks: bool = True
    """Whether a replica gets calls only while its grpc.health.v1 says SERVING. pick_first never asks."""
    retries: RetriesConfig = RetriesConfig.model_validate({})
    weights: WeightsConfig = WeightsConfig.model_validate({})
    outliers: OutliersConfig | None = None
    """Without it no replica is left out for its errors."""

    @model_validator(mode="after")
    def _several_picked(self) -> Self:
        if self.policy == "pick_first" and self.outliers is not None:
            raise ValueError("outliers: pick_first has one replica alone, and nothing to compare it with")
        return self


def service_config(config: BalancingConfig, service: str, safe: Sequence[str]) -> ServiceConfig:
    """The service config of `service` (its full name). `safe` are its methods that may be tried twice."""
    made: ServiceConfig = {"loadBalancingConfig": [_policy(config)]}
    if config.health_checks:
        made["healthCheckConfig"] = {"serviceName": service}
    if config.retries.attempts > 1 and safe:
        names = [{"service": service, "method": method} for method in safe]
        made["methodConfig"] = [{"name": names, "retryPolicy": _retry(config.retries)}]
        made["retryThrottling"] = {
            "maxTokens": config.retries.throttle_tokens,
            "tokenRatio": config.retries.token_ratio,
        }
    return made


def _policy(config: BalancingConfig) -> ServiceConfig:
    chosen: ServiceConfig = {config.policy: _weights(config.weights) if config.policy == "weighted_round_robin" else {}}
    if config.outliers is None:
        return chosen
    return {"outlier_detection_experimental": {**_outliers(config.outliers), "childPolicy": [chosen]}}


def _weights(config: WeightsConfig) -> ServiceConfig:
    return {
        "blackoutPeriod": _duration(config.blackout_seconds),
        "weightExpirationPeriod": _duration(config.expiry_seconds),
        "weightUpdatePeriod": _duration(config.update_seconds),
        "errorUtilizationPenalty": config.error_penalty,
    }


def _outliers(config: OutliersConfig) -> ServiceConfig:
    return {
        "interval": _duration(config.interval_seconds),
        "baseEjectionTime": _duration(config.ejected_seconds),
        "maxEjectionTime": _duration(10 * config.ejected_seconds),
        "maxEjectionPercent": config.ejected_percent,
        "failurePercentageEjection": {
            "threshold": config.failed_percent,
            "enforcementPercentage": 100,
            "minimumHosts": 2,
            "requestVolume": config.calls,
        },
    }


def _retry(config: RetriesConfig) -> ServiceConfig:
    return {
        "maxAttempts": config.attempts,
        "initialBackoff": _FIRST_BACKOFF,
        "maxBackoff": _LONGEST_BACKOFF,
        "backoffMultiplier": 2,
        "retryableStatusCodes": _RETRYABLE,
    }


def _duration(seconds: float) -> str:
    """As protobuf's JSON has it."""
    return f"{seconds:.3f}s"
