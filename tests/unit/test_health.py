"""Health tells its watchers, and has room for so many."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from meshgate.runtime.health import NOT_SERVING, SERVING, Health


class Refused(Exception):
    """What a context's abort raises."""


class Context:
    """Of one watcher."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[int] = asyncio.Queue()

    async def write(self, reply: health_pb2.HealthCheckResponse) -> None:
        self.told.put_nowait(reply.status)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Refused(code)


def watch(health: Health, context: Any) -> asyncio.Task[None]:
    return asyncio.create_task(health.Watch(health_pb2.HealthCheckRequest(service="a"), context))


async def test_a_watcher_hears_each_change() -> None:
    health, context = Health(), Context()
    watching = watch(health, context)
    seen = [await context.told.get()]
    for state in (SERVING, NOT_SERVING):
        await health.set("a", state)
        seen.append(await context.told.get())
    assert seen == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN, SERVING, NOT_SERVING]
    await health.enter_graceful_shutdown()
    await watching


async def test_one_watcher_too_many_is_refused_until_another_leaves() -> None:
    health = Health(watchers=2)
    contexts = [Context() for _ in range(3)]
    first, second = (watch(health, context) for context in contexts[:2])
    await asyncio.gather(*(context.told.get() for context in contexts[:2]))
    with pytest.raises(Refused) as refused:
        await watch(health, contexts[2])
    assert refused.value.args == (grpc.StatusCode.RESOURCE_EXHAUSTED,)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    third = watch(health, contexts[2])
    await contexts[2].told.get()
    await health.enter_graceful_shutdown()
    await asyncio.gather(second, third)
