"""Tasks that wait for a store which takes commands and never answers: cancelled at whatever moment, they end.

redis-py may keep a cancellation back before Python 3.12, where it comes as a command has just been sent. So each task
is cancelled after every number of turns of the event loop from its beginning until long after that moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from gateway import redis_client
from gateway.audit.config import RedisSinkConfig
from gateway.audit.sinks.redis_sink import RedisSink
from gateway.audit.sinks.sink import SinkFailed
from gateway.authentication import RevocationConfig, revocations_of
from gateway.authentication.revocation import revocation_source
from gateway.limits import settlement_queue
from gateway.limits.config import LimitsConfig
from gateway.limits.plan import Plan, Plans
from gateway.limits.redis_store import RedisStore
from gateway.limits.store import Grant
from gateway.redis_client import Client, StoreConfig
from gateway.sealing.replay_cache import RedisReplayCache

TURNS = 40
TIMEOUT = 0.1
BOUND = 5.0
"""Seconds; a task that goes on would do so for ever."""

Begin = Callable[[Client], Coroutine[Any, Any, Any]]


@pytest.fixture
async def silent(tmp_path: Path) -> AsyncIterator[StoreConfig]:
    """A store that reads and says nothing."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_unix_server(swallow, tmp_path / "s")
    yield StoreConfig(url=SecretStr(f"unix://{tmp_path / 's'}"), timeout_seconds=TIMEOUT)
    server.close()


def plan() -> Plan:
    return Plans(LimitsConfig.model_validate({"principal": {"concurrent_calls": 2}})).of("a", "b", "", streams=False)


async def renewing(client: Client) -> None:
    """The loop that renews leases and settles, with something to settle at once."""
    shared = RedisStore(client, "mesh", TIMEOUT, 1, Counter())
    shared._settlements.settle(Grant(shared, plan(), "lease", 0, 0, 0), 0)
    await shared._settlements._run()


async def revoked(client: Client) -> None:
    await revocations_of(RevocationConfig(store=True), client).refresher._run()


async def admitting(client: Client) -> None:
    """One command, again and again, as calls make it; what they are told goes on to the next."""
    replays = RedisReplayCache(client, "mesh", 120_000, 1000, TIMEOUT)
    for number in range(1000):
        with pytest.raises(Exception, match="can't be known now"):
            await replays.admit(number.to_bytes(32), 0)


@pytest.mark.parametrize("begin", [renewing, revoked, admitting])
async def test_a_task_that_is_cancelled_ends(
    silent: StoreConfig, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_source, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(settlement_queue, "_AGAIN_SECONDS", 0.0)
    for turns in range(TURNS):
        client = redis_client.connect(silent)
        task = asyncio.create_task(begin(client))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        ended, _ = await asyncio.wait((task,), timeout=BOUND)
        assert ended, f"it goes on when it is cancelled after {turns} turns of the loop"
        assert task.cancelled()
        await client.aclose()


async def test_a_command_is_bounded_without_anybodys_help(silent: StoreConfig) -> None:
    """Where the client's own retries nested, it went on for ever, and so did the look for revocations."""
    client = redis_client.connect(silent)
    async with asyncio.timeout(BOUND):
        with pytest.raises(redis.RedisError):
            await client.xrevrange("a", count=1)
    await client.aclose()


async def test_a_lost_cancellation_is_heeded_after_the_command() -> None:
    async def command() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return  # as redis-py does

    async def loop() -> None:
        while True:
            async with redis_client.bounded(60):
                await command()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    ended, _ = await asyncio.wait((task,), timeout=BOUND)
    assert ended
    assert task.cancelled()


async def test_a_command_that_takes_too_long_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with redis_client.bounded(0.01):
            await asyncio.sleep(60)


async def test_the_limits_stop_in_time(silent: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement_queue, "_DRAIN_SECONDS", 0.5)
    client = redis_client.connect(silent)
    shared = RedisStore(client, "mesh", TIMEOUT, 1, Counter())
    for number in range(1000):
        shared._settlements.hold(Grant(shared, plan(), f"{number}", 0, 0, 0))
    began = time.monotonic()
    await shared.stop()
    assert time.monotonic() - began < BOUND
    await client.aclose()


async def test_the_audit_sink_fails_in_time(silent: StoreConfig) -> None:
    config = RedisSinkConfig(url=silent.url, kind="redis")
    sink = RedisSink(config, "w", TIMEOUT)
    began = time.monotonic()
    with pytest.raises(SinkFailed):
        await asyncio.to_thread(sink.write, [b"record"])
    assert time.monotonic() - began < BOUND
    sink.close()
