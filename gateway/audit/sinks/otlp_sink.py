"""An OpenTelemetry collector as a sink, by OTLP over gRPC.

The SDK's exporter is not used: it retries beyond the time that a caller can wait, logs addresses, and hides which
records the collector rejected. The protocol is one call. The body of each log is the record's bytes, so that they stay
comparable with those on disk.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Final

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.audit.config import OtlpSinkConfig
from gateway.audit.sinks.sink import SinkFailed, SinkRefused
from meshgate.rpc import channel
from meshgate.runtime.config import ConfigError

_MAX_RECORDS: Final = 512
_MAX_BYTES: Final = 2 * 1024 * 1024
"""Bytes of one export; a collector takes 4 MiB by default."""
_TIME: Final = re.compile(rb'"time":(\d{1,18})', re.ASCII)
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The codes that the OTLP specification says to retry."""


class OtlpSink:
    """Exports records as logs. A Sink."""

    def __init__(self, config: OtlpSinkConfig, writer: str, timeout_seconds: float) -> None:
        self._config = config
        self._timeout = timeout_seconds
        self._metadata = tuple((name, value.get_secret_value()) for name, value in config.headers.items())
        self._resource = Resource(
            attributes=[_attribute("service.name", "meshgate-gateway"), _attribute("service.instance.id", writer)]
        )
        self._channel: grpc.Channel | None = None

    def open(self) -> None:
        """Connects lazily: a collector may start later. Raises ConfigError for a CA that can't be read."""
        config = self._config
        options = () if config.proxy else channel.DIRECT
        if config.insecure:
            self._channel = grpc.insecure_channel(config.target, options)
        else:
            try:
                ca = config.ca.read_bytes() if config.ca else None
            except OSError as error:
                raise ConfigError(f"{config.key_of('ca')}: {config.ca}: {error.strerror}") from error
            self._channel = grpc.secure_channel(config.target, grpc.ssl_channel_credentials(ca), options)
        self._export = LogsServiceStub(self._channel).Export  # type: ignore[no-untyped-call] # generated, no stubs

    def write(self, records: Sequence[bytes]) -> None:
        """Returns when the collector has all records. Raises SinkFailed."""
        deadline = time.monotonic() + self._timeout
        for batch in _batches(records):
            self._send(batch, deadline - time.monotonic())

    def due(self) -> float | None:
        return None

    def idle(self) -> None:
        return

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _send(self, batch: Sequence[bytes], seconds: float) -> None:
        try:
            reply = self._export(self._request(batch), timeout=max(0.0, seconds), metadata=self._metadata)
        except grpc.RpcError as error:
            kind = SinkFailed if error.code() in _PASSING else SinkRefused
            raise kind(f"the collector says {error.code().name}") from error
        if rejected := reply.partial_success.rejected_log_records:
            raise SinkRefused(f"the collector rejected {rejected} records")

    def _request(self, batch: Sequence[bytes]) -> ExportLogsServiceRequest:
        scope = ScopeLogs(scope=InstrumentationScope(name="meshgate.audit"), log_records=map(_log_record, batch))
        return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scope])])


def _log_record(record: bytes) -> LogRecord:
    found = _TIME.search(record)
    nanoseconds = int(found[1]) * 1000 if found else 0
    return LogRecord(
        time_unix_nano=nanoseconds,
        observed_time_unix_nano=nanoseconds,
        severity_number=SEVERITY_NUMBER_INFO,
        body=AnyValue(string_value=record.decode()),
    )


def _batches(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for record in records:
        if batch and (len(batch) == _MAX_RECORDS or size + len(record) > _MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record)
    yield batch


def _attribute(name: str, value: str) -> KeyValue:
    return KeyValue(key=name, value=AnyValue(string_value=value))
