"""Which envelopes were used: remembered by this process, or in the store by all workers and replicas together."""

from __future__ import annotations

import os
from typing import Final, Protocol

import redis.exceptions

from gateway.redis_client import Client, bounded
from meshgate import errors
from meshgate.sealing import codec

_APART_MS: Final = 60_000
"""How far the clocks of two gateways may differ: the slower one could accept an envelope that much longer."""


class ReplayCache(Protocol):
    """Remembers envelopes while they could be used again."""

    async def admit(self, used: bytes, now_ms: int) -> None:
        """`used` is sealing.used_by of the envelope and its caller.

        Raises InvalidArgument (SEAL_REPLAYED) for an envelope seen before, and Unavailable if the store is down.
        """


class ProcessReplayCache:
    """Of one process alone."""

    def __init__(self, window_ms: int, capacity: int) -> None:
        self._cache = codec.ReplayCache(window_ms, capacity)

    async def admit(self, used: bytes, now_ms: int) -> None:
        """See ReplayCache."""
        self._cache.admit(used, now_ms)

    def forget(self, used: bytes) -> None:
        """Takes back what was admitted, and was not used after all."""
        self._cache.forget(used)


class RedisReplayCache:
    """In Redis or Valkey: a key an envelope, which ends a minute after the envelope does. It must not evict keys.

    Two bounds hold: the capacity of each process, and the store's `maxmemory`. A full store refuses the key, and so the
    call is refused.
    """

    def __init__(self, client: Client, prefix: str, window_ms: int, capacity: int, timeout: float) -> None:
        """`capacity` is how many envelopes this process remembers while they could be used again. Each command is
        bounded by `timeout` seconds.
        """
        self._client = client
        self._prefix = f"{prefix}:replays:"
        self._lasts_ms = 2 * window_ms + _APART_MS
        self._own = ProcessReplayCache(window_ms, capacity)
        self._timeout = timeout

    async def admit(self, used: bytes, now_ms: int) -> None:
        """See ReplayCache. Without the store sealed calls are refused, since a replay could not be detected.

        An envelope that was refused for that was not used. It may come again unless the store has recorded it.
        """
        await self._own.admit(used, now_ms)
        mine = os.urandom(8)  # a command that the client sent twice must not take itself for another's
        try:
            async with bounded(self._timeout):
                found = await self._client.set(self._prefix + used.hex(), mine, px=self._lasts_ms, nx=True, get=True)
        except (redis.exceptions.RedisError, OSError, TimeoutError):
            self._own.forget(used)
            raise errors.Unavailable(
                "whether an envelope was used before can't be known now", reason="REPLAYS_UNAVAILABLE", retry_after=1.0
            ) from None
        if found is not None and found != mine:
            raise codec.replayed()
