"""The store that workers and replicas share: Redis or Valkey. Limits, replays and revocations agree through it.

The process has one pool of connections. Each command has a time limit, which bounds what a hanging store costs a
caller. The part that uses the store decides what its outage means.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final
from urllib.parse import unquote, urlsplit

import redis.asyncio as redis
from pydantic import AfterValidator, Field, SecretStr
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from meshgate.runtime.config import Strict

_PORT: Final = 6379
_CAUSES: Final = 8
_CODE: Final = re.compile(r"[A-Z]{2,32}\b", re.ASCII)
"""The code that the errors of a store begin with, as in `OOM command not allowed`."""
SCHEMES: Final = ("redis://", "rediss://", "unix://")

_URL_RULE: Final = (
    "must begin with one of redis://, rediss://, unix://, as in redis://user:password@host:6379/0, with options that "
    "redis-py knows"
)

Client = redis.Redis


def _url(value: SecretStr) -> SecretStr:
    """The URL as it is, where redis-py can make a connection of it. Errors do not repeat it: it holds a password."""
    try:
        if not value.get_secret_value().startswith(SCHEMES):
            raise ValueError
        pool = redis.ConnectionPool.from_url(value.get_secret_value())
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, AttributeError, redis.RedisError):
        raise ValueError(_URL_RULE) from None
    return value


StoreUrl = Annotated[SecretStr, AfterValidator(_url)]
"""Where a Redis or Valkey is."""


class StoreConfig(Strict):
    """Where the store is."""

    url: StoreUrl
    """redis://, rediss:// (TLS) or unix://, with user and password where it asks for them."""
    timeout_seconds: float = Field(0.25, gt=0, le=5)
    """How long one command, connecting included, may take."""
    connections: int = Field(32, ge=1, le=1000)
    """The most connections of one worker."""
    prefix: str = Field("meshgate", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The prefix of every key, so that several meshes can share a store."""


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """For one command: raises TimeoutError after so many seconds, and CancelledError as `heed_cancellation` does."""
    try:
        async with asyncio.timeout(seconds):
            yield
    finally:
        heed_cancellation()


def heed_cancellation() -> None:
    """Raises CancelledError if the task was cancelled. Call it after commands.

    redis-py sends by asyncio.wait_for. Before Python 3.12, that swallows a cancellation that comes as it ends, and a
    loop would never stop.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def connect(config: StoreConfig) -> Client:
    """A client; nothing is sent before its first command. Its commands raise redis.RedisError or TimeoutError."""
    pool = redis.BlockingConnectionPool.from_url(
        config.url.get_secret_value(),
        max_connections=config.connections,
        timeout=config.timeout_seconds,
        socket_timeout=config.timeout_seconds,
        socket_connect_timeout=config.timeout_seconds,
        health_check_interval=0,  # before a store that hangs its retries nest without end
        retry=Retry(NoBackoff(), 1),  # a connection that the store closed while idle is opened anew
    )
    return redis.Redis.from_pool(pool)


def address(url: str) -> str:
    """Where a store is, without its user, password and options: for logs."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix:{unquote(parts.path)}"
    with contextlib.suppress(ValueError):  # no number for a port
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
        return f"{host}:{parts.port or _PORT}"
    return parts.scheme


def cause(error: BaseException | None) -> str:
    """Why a store did not answer, or how it refused.

    The cause is the system's message or the store's own code. The text of an answer may repeat what was sent.
    """
    found: BaseException | None = error
    for _ in range(_CAUSES):
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        if isinstance(found, TimeoutError | redis.TimeoutError):
            return "timed out"
        if isinstance(found, redis.ResponseError) and (code := _CODE.match(str(found))):
            return f"refused with {code.group()}"
        if found is None:
            break
        found = found.__cause__ or found.__context__
    return type(error).__name__
