"""The parts of a configuration that all services of models share. A service adds only the keys of its own."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from meshgate.rpc.server import ServerConfig
from meshgate.runtime.config import Strict
from meshgate.runtime.metrics_server import MetricsConfig
from services.models.config import ModelT


class ServiceConfig(Strict):
    """The sections that every service has."""

    server: ServerConfig
    metrics: MetricsConfig = MetricsConfig.model_validate({})


class EngineLimits(Strict):
    """The limits of every engine."""

    queue_bytes: int = Field(33_554_432, ge=65_536, le=17_179_869_184)
    """The maximum number of bytes of inputs and constraints that are being prepared, or wait for it. Calls beyond it
    are refused. One tenant alone gets three quarters.
    """
    hang_seconds: float = Field(120.0, gt=0, le=3600)
    """The maximum duration of one batch or decode step. Beyond it the model counts as hung and the process ends."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads of the models; 0 means one thread per core. Batches that run in parallel share them."""


class EncoderEngineConfig(EngineLimits):
    """The engine that runs batches of inputs; all calls and all models of the service share it."""

    batch_tokens: int = Field(4096, ge=1, le=16_777_216)
    """The maximum number of tokens in one batch, padding included."""
    queue_tokens: int = Field(262_144, ge=1, le=1_073_741_824)
    """The maximum number of tokens in progress, queued tokens included. Calls beyond it are refused. One tenant alone
    gets three quarters.
    """
    queue_calls: int = Field(4096, ge=1, le=1_048_576)
    """The maximum number of calls in progress, queued calls included; one tenant alone gets three quarters. Each
    message of a stream that is in progress counts as a call.
    """
    max_batch: int = Field(1024, ge=1, le=65_536)
    """The maximum number of inputs in one request."""
    concurrent_batches: int = Field(0, ge=0, le=64)
    """Batches that run in parallel. 0 means two on a CPU that has two threads for them, and one elsewhere."""


def named_sections(model: ModelT, others: Sequence[ModelT]) -> dict[str, ModelT]:
    """The sections `model` and `models` of a configuration by their keys, the default model first."""
    return {"model": model, **{f"models.{index}": each for index, each in enumerate(others)}}
