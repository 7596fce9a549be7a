"""A stream in Redis or Valkey as a sink.

A record is there when the server confirms it, as durable as that server's own persistence. A record whose confirmation
was lost may be there twice; its request id and event show that.

The sink packs its commands itself: the client's own way of packing costs more than all other work for a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.audit.config import RedisSinkConfig
from gateway.audit.sinks.sink import SinkFailed
from gateway.redis_client import address, cause

_MAX_ENTRIES: Final = 1000
"""Entries of one round trip."""


class RedisSink:
    """Appends entries with the fields `record` and `writer`. A Sink."""

    def __init__(self, config: RedisSinkConfig, writer: str, timeout_seconds: float) -> None:
        self._address = address(config.url.get_secret_value())
        self._pool = redis.ConnectionPool.from_url(
            config.url.get_secret_value(),
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),  # the queue knows whether there is time for another try
        )
        words = ("XADD", config.stream, "MAXLEN", "~", str(config.max_records), "*", "writer", writer, "record")
        self._command = b"*%d\r\n" % (len(words) + 1) + b"".join(_bulk(word.encode()) for word in words)

    def open(self) -> None:
        return

    def write(self, records: Sequence[bytes]) -> None:
        """Returns when the server has all records. Raises SinkFailed."""
        try:
            for start in range(0, len(records), _MAX_ENTRIES):
                self._add(records[start : start + _MAX_ENTRIES])
        except redis.RedisError as error:
            raise SinkFailed(f"the store at {self._address} refuses or is unavailable: {cause(error)}") from error

    def due(self) -> float | None:
        return None

    def idle(self) -> None:
        return

    def close(self) -> None:
        self._pool.disconnect()

    def _add(self, records: Sequence[bytes]) -> None:
        connection = self._pool.get_connection()  # a connection that the server closed meanwhile is opened anew
        try:
            packed = b"".join([self._command + _bulk(record) for record in records])
            connection.send_packed_command([packed], check_health=False)  # type: ignore[no-untyped-call] # redis has none
            for _ in records:
                connection.read_response()
        except BaseException:
            connection.disconnect()  # type: ignore[no-untyped-call] # its pending replies belong to no command
            raise
        finally:
            self._pool.release(connection)


def _bulk(word: bytes) -> bytes:
    """A bulk string of the Redis protocol."""
    return b"$%d\r\n%b\r\n" % (len(word), word)
