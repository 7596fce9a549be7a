"""How much a caller may ask: requests, tokens, and calls and streams at once, of everybody, a tenant and a principal.

`stage` is what the pipeline uses; `ask` reads how many tokens a call may take, `plan` says what is charged to whom, and
a `store` decides: `memory` in this process, `shared` (with `scripts` and `settler`) in Redis or Valkey, `outage` while
that is down. The arithmetic is in gateway/limits/gcra.py.
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
