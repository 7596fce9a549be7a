"""The [audit] section: where the audit log is, how it is kept, and which other sinks get its records."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from gateway.redis_client import StoreUrl
from meshgate.rpc.targets import Target
from meshgate.runtime.config import ConfigPath, Strict

_DAY: float = 86_400.0


class SinkBase(Strict):
    """The keys of every sink."""

    required: bool = False
    """Whether a call is refused when the sink does not get its record. Otherwise records wait in a queue; when the
    queue is full, the newest are dropped and counted.
    """
    timeout_seconds: float | None = Field(None, gt=0, le=60)
    """How long a record may take to reach the sink. Default: audit.timeout_seconds."""
    queue_records: int | None = Field(None, ge=1, le=1_000_000)
    """How many records may wait. Default: audit.queue_records."""


class FileSinkConfig(SinkBase):
    """The log on disk in audit.directory: hash-chained and signed. `meshgate audit` reads it."""

    kind: Literal["file"] = "file"
    """Says that the sink is the log on disk."""
    required: bool = True


class RedisSinkConfig(SinkBase):
    """A stream in Redis or Valkey. Its entries have the fields `record` and `writer`."""

    kind: Literal["redis"]
    """Says that the sink is a stream of a Redis or Valkey."""
    url: StoreUrl
    """redis://, rediss:// (TLS) or unix://, with user and password where the server asks for them."""
    stream: str = Field("meshgate:audit", min_length=1, max_length=256)
    """The key of the stream."""
    max_records: int = Field(1_000_000, ge=1)
    """About how many records the stream keeps; older ones are trimmed."""


class OtlpSinkConfig(SinkBase):
    """An OpenTelemetry collector, reached by OTLP over gRPC."""

    kind: Literal["otlp"]
    """Says that the sink is an OpenTelemetry collector."""
    target: Target = Field(min_length=1, max_length=4096)
    """host:port."""
    ca: ConfigPath | None = None
    """PEM certificates of the CAs that may sign the collector's certificate. Default: the system's."""
    insecure: bool = False
    """Whether the connection has no TLS: for a collector on the same machine."""
    proxy: bool = False
    """Whether the collector is reached through the proxy that grpc_proxy, https_proxy or http_proxy names."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Metadata of each export, such as an access key."""

    @model_validator(mode="after")
    def _one_trust(self) -> Self:
        if self.insecure and self.ca is not None:
            raise ValueError("ca: an insecure sink has no CA")
        return self


class StdoutSinkConfig(SinkBase):
    """Standard output, one line per record, for a platform that collects it."""

    kind: Literal["stdout"]
    """Says that the sink is standard output."""


SinkConfig = Annotated[
    FileSinkConfig | RedisSinkConfig | OtlpSinkConfig | StdoutSinkConfig, Field(discriminator="kind")
]


class AuditConfig(Strict):
    """The [audit] section."""

    directory: ConfigPath
    """The directory of segments and checkpoints. It is made when missing, for its owner alone. Each process that writes
    has its own part.
    """
    keys: ConfigPath
    """The directory of the signing keys (Ed25519) and of the HMAC keys of content; made when missing."""
    sinks: tuple[SinkConfig, ...] = (FileSinkConfig(),)
    """The sinks of the records. Default: the log on disk alone."""
    segment_bytes: int = Field(64 * 1024 * 1024, ge=4096, le=4 * 1024**3)
    """The size at which a segment is sealed and the next one begins."""
    segment_seconds: float = Field(_DAY, ge=1, le=366 * _DAY)
    """The age of its first record at which a segment is sealed and the next one begins."""
    checkpoint_records: int = Field(1000, ge=1, le=1_000_000)
    """A checkpoint is due when this many records are not covered by one. While none can be written, the log takes at
    most 1000 records more.
    """
    checkpoint_seconds: float = Field(10.0, ge=0.1, le=3600)
    """A checkpoint is due when the first uncovered record is this old. While none can be written, the log takes records
    for as long again.
    """
    signing_key_seconds: float = Field(90 * _DAY, ge=1, le=3660 * _DAY)
    """The age at which the key that signs checkpoints is replaced by a new one, which it signs."""
    digest_key_seconds: float = Field(30 * _DAY, ge=1, le=3660 * _DAY)
    """The age at which the HMAC key of content is replaced. Old keys are kept, to match old records."""
    timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long a call waits for its record to be durable before it is refused."""
    queue_records: int = Field(10_000, ge=1, le=1_000_000)
    """How many records may wait."""
    gather_seconds: float = Field(0.02, ge=0, le=0.1)
    """The longest delay of a group commit. While many calls are in flight, records wait so long for others to share
    their sync. The delay is never longer than a fifth of the present duration of a call.
    """

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        counts = Counter(sink.kind for sink in self.sinks)
        if not counts:
            raise ValueError("sinks: at least one is required")
        if twice := [kind for kind, count in counts.items() if count > 1 and kind in {"file", "stdout"}]:
            raise ValueError(f"sinks: {twice[0]} may appear only once")
        return self
