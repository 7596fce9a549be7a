"""The limits of a caller: requests, tokens, and concurrent calls and streams, of all callers, a tenant and a principal.

`limiter.py` is the stage of the pipeline. `cost.py` estimates the tokens of a call. `plan.py` says which buckets a call
is charged to. A `store.py` decides: `memory_store.py` in this process, `redis_store.py` (with `lua_scripts.py` and
`settlement_queue.py`) in Redis or Valkey, `failover.py` while that one is down. The arithmetic is in `gcra.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from gateway.limits.config import LimitsConfig
from gateway.limits.failover import FailoverStore
from gateway.limits.limiter import MAX_CALLS, RateLimiter, Reservation
from gateway.limits.memory_store import MemoryStore
from gateway.limits.redis_store import RedisStore
from gateway.redis_client import Client, StoreConfig, address
from meshgate.v1 import models_pb2

__all__ = ["LimitsConfig", "RateLimiter", "Reservation", "connected"]


def connected(
    config: LimitsConfig,
    store: StoreConfig,
    client: Client,
    *,
    workers: int,
    models: Callable[[], Iterable[models_pb2.Model]],
    max_calls: int = MAX_CALLS,
) -> RateLimiter:
    """The stage with its buckets in `client`'s store, which its owner closes after `RateLimiter.stop`."""
    counts: Counter[str] = Counter()
    shared = RedisStore(client, store.prefix, store.timeout_seconds, config.lease_seconds, counts)
    local = MemoryStore() if config.on_outage == "local" else None
    where = address(store.url.get_secret_value())
    failover = FailoverStore(shared, local, config.replicas * workers, counts, address=where)
    return RateLimiter(config, failover, models, counts=counts, max_calls=max_calls)
