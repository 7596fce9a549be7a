"""A stream of a Redis or Valkey as a sink.

An entry is there when the server says so, which is as safe as that server's own persistence. One whose answer was lost
may be there twice; its request id and event tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.audit.config import RedisSinkConfig
from gateway.audit.sink import SinkFailed

_MAX_ENTRIES: Final = 1000
"""Of one round trip."""


class RedisSink:
    """Appends entries with the fields `record` and `writer`. A Sink."""

    def __init__(self, config: RedisSinkConfig, writer: str, timeout_seconds: float) -> None:
        self._config = config
        self._writer = writer
        self._client = redis.Redis.from_url(
            config.url.get_secret_value(),
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # A connection that the server closed meanwhile is opened anew; one that hangs has had its time.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )

    def open(self) -> None:
        return

    def write(self, records: Sequence[bytes]) -> None:
        """Returns when the server has all. Raises SinkFailed."""
        try:
            for start in range(0, len(records), _MAX_ENTRIES):
                self._add(records[start : start + _MAX_ENTRIES])
        except redis.RedisError as error:
            raise SinkFailed(f"the store refuses or is away: {type(error).__name__}") from error

    def due(self) -> float | None:
        return None

    def idle(self) -> None:
        return

    def close(self) -> None:
        self._client.close()

    def _add(self, records: Sequence[bytes]) -> None:
        with self._client.pipeline(transaction=False) as entries:
            for record in records:
                fields: dict[Any, Any] = {"record": record, "writer": self._writer}  # the stubs' dict is invariant
                entries.xadd(self._config.stream, fields, maxlen=self._config.max_records, approximate=True)
            entries.execute()
