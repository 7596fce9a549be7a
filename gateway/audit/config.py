"""Where the audit log is, how it is kept, and who else gets its records."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from gateway.redis_client import StoreUrl
from meshgate.rpc.targets import Target
from meshgate.runtime.config import ConfigPath, Strict

_DAY: float = 86_400.0


class SinkBase(Strict):
    """What every sink has."""

    required: bool = False
    """Whether a call is refused when its record does not get there. Else records wait, and the newest are dropped and
    counted when the queue is full."""
    timeout_seconds: float | None = Field(None, gt=0, le=60)
    """How long a record may take to get there. Default: audit.timeout_seconds."""
    queue_records: int | None = Field(None, ge=1, le=1_000_000)
    """How many records may wait. Default: audit.queue_records."""


class FileSinkConfig(SinkBase):
    """The log on disk: hash-chained, signed, in audit.directory. What `meshgate audit` reads."""

    kind: Literal["file"] = "file"
    """Says that the sink is the log on disk."""
    required: bool = True


class RedisSinkConfig(SinkBase):
    """A stream of a Redis or Valkey, of entries with one field, `record`."""

    kind: Literal["redis"]
    """Says that the sink is a stream of a Redis or Valkey."""
    url: StoreUrl
    """redis://, rediss:// (TLS) or unix://, with user and password where it asks for them."""
    stream: str = Field("meshgate:audit", min_length=1, max_length=256)
    """The key."""
    max_records: int = Field(1_000_000, ge=1)
    """About how many the stream keeps; older ones are trimmed."""


class OtlpSinkConfig(SinkBase):
    """An OpenTelemetry collector, by OTLP over gRPC."""

    kind: Literal["otlp"]
    """Says that the sink is an OpenTelemetry collector."""
    target: Target = Field(min_length=1, max_length=4096)
    """host:port."""
    ca: ConfigPath | None = None
    """PEM of who may vouch for the collector. Default: the system's."""
    insecure: bool = False
    """No TLS at all: for a collector on the same machine."""
    proxy: bool = False
    """Whether the collector is reached through the proxy that grpc_proxy, https_proxy or http_proxy names."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Metadata of each export, such as an access key."""

    @model_validator(mode="after")
    def _one_trust(self) -> Self:
        if self.insecure and self.ca is not None:
            raise ValueError("ca: an insecure sink has none")
        return self


class StdoutSinkConfig(SinkBase):
    """Standard output, a line a record, for a platform that collects it."""

    kind: Literal["stdout"]
    """Says that the sink is standard output."""


SinkConfig = Annotated[
    FileSinkConfig | RedisSinkConfig | OtlpSinkConfig | StdoutSinkConfig, Field(discriminator="kind")
]


class AuditConfig(Strict):
    """The audit section."""

    directory: ConfigPath
    """Of the segments and checkpoints; made when missing, owner-only. Each process that writes has its own part."""
    keys: ConfigPath
    """Of the signing keys (Ed25519) and the keys of content digests; made when missing."""
    sinks: tuple[SinkConfig, ...] = (FileSinkConfig(),)
    """Where records go. Default: the log on disk alone."""
    segment_bytes: int = Field(64 * 1024 * 1024, ge=4096, le=4 * 1024**3)
    """A segment that has grown to this is sealed and the next one begun."""
    segment_seconds: float = Field(_DAY, ge=1, le=366 * _DAY)
    """So is one whose first record is this old."""
    checkpoint_records: int = Field(1000, ge=1, le=1_000_000)
    """A checkpoint is due when so many records have none. Where none can be written, 1000 more are taken at most."""
    checkpoint_seconds: float = Field(10.0, ge=0.1, le=3600)
    """So it is when the first of them is this old. Where none can be written, records are taken for as long again."""
    signing_key_seconds: float = Field(90 * _DAY, ge=1, le=3660 * _DAY)
    """The age at which a key that signs checkpoints is followed by the next, which it signs."""
    digest_key_seconds: float = Field(30 * _DAY, ge=1, le=3660 * _DAY)
    """The age at which a key of content digests is followed by the next. Old ones are kept, to match old records."""
    timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long a call waits for its record to be on disk before it is refused."""
    queue_records: int = Field(10_000, ge=1, le=1_000_000)
    """How many records may wait."""
    gather_seconds: float = Field(0.02, ge=0, le=0.1)
    """The longest that records wait for others to share their sync, while many calls are under way; never more than a
    fifth of what calls take then."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        counts = Counter(sink.kind for sink in self.sinks)
        if not counts:
            raise ValueError("sinks: at least one is needed")
        if twice := [kind for kind, count in counts.items() if count > 1 and kind in {"file", "stdout"}]:
            raise ValueError(f"sinks: {twice[0]} can be there once")
        return self
