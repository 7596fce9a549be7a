"""Health tells its watchers, has room for so many, and keeps a service's name of a request that is small."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any, NamedTuple

import pytest
from grpc_health.v1 import health_pb2

from meshgate import errors
from meshgate.rpc import channel
from meshgate.rpc.call.connection_slots import ConnectionSlots
from meshgate.rpc.health import NOT_SERVING, PATHS, SERVING, Health
from meshgate.rpc.status import TOO_LARGE

CHECK, LIST, WATCH = PATHS
contract: Any = health_pb2  # its stubs lack List


class Details(NamedTuple):
    """What a handler is looked up with."""

    method: str


class Context:
    """Of one call."""

    def __init__(self, request: Any = b"", peer: str = "ipv4:192.0.2.1:1") -> None:
        self.told: asyncio.Queue[int] = asyncio.Queue()
        self._request = request
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    async def read(self) -> Any:
        return self._request

    async def write(self, reply: bytes) -> None:
        self.told.put_nowait(health_pb2.HealthCheckResponse.FromString(reply).status)


def named(service: str) -> bytes:
    return health_pb2.HealthCheckRequest(service=service).SerializeToString()


async def ask(health: Health, path: str, context: Context) -> Any:
    handler = health.service(Details(path))
    return await (handler.stream_unary or handler.stream_stream)(None, context)


def watch(health: Health, context: Context) -> asyncio.Task[None]:
    return asyncio.create_task(ask(health, WATCH, context))


async def test_a_watcher_hears_each_change() -> None:
    health, context = Health(), Context(named("a"))
    watching = watch(health, context)
    seen = [await context.told.get()]
    for state in (SERVING, NOT_SERVING):
        await health.set("a", state)
        seen.append(await context.told.get())
    assert seen == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN, SERVING, NOT_SERVING]
    await health.enter_graceful_shutdown()
    await watching


async def test_one_watcher_too_many_is_refused_until_another_leaves() -> None:
    health = Health(ConnectionSlots(3, 2), address=lambda peer: peer.split(":")[1])
    contexts = [Context(named("a"), peer) for peer in ("ipv4:192.0.2.1:1", "ipv4:192.0.2.1:2", "ipv4:192.0.2.2:1")]
    watching = [watch(health, context) for context in contexts]
    await asyncio.gather(*(context.told.get() for context in contexts))
    for peer in ("ipv4:192.0.2.1:3", "ipv4:192.0.2.3:1"):
        with pytest.raises(errors.LimitExceeded):
            await watch(health, Context(named("a"), peer))
    watching[0].cancel()
    await asyncio.gather(watching[0], return_exceptions=True)
    again = Context(named("a"), "ipv4:192.0.2.1:4")
    watching[0] = watch(health, again)
    await again.told.get()
    await health.enter_graceful_shutdown()
    await asyncio.gather(*watching)


async def test_a_check_tells_the_state_of_a_service_that_exists() -> None:
    health = Health()
    await health.set("a", SERVING)
    reply = health_pb2.HealthCheckResponse.FromString(await ask(health, CHECK, Context(named("a"))))
    assert reply.status == SERVING
    with pytest.raises(errors.NotFound):
        await ask(health, CHECK, Context(named("b")))


async def test_a_list_tells_all_states() -> None:
    health = Health()
    await health.set("", SERVING)
    await health.set("a", NOT_SERVING)
    reply = contract.HealthListResponse.FromString(await ask(health, LIST, Context()))
    assert {name: state.status for name, state in reply.statuses.items()} == {"": SERVING, "a": NOT_SERVING}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        (named("a" * 1024), errors.InvalidArgument, TOO_LARGE),
        (b"\x12\x80\x08" + b"\x00" * 1024, errors.InvalidArgument, TOO_LARGE),  # an unknown field
        (b"\xff", errors.InvalidArgument, "MALFORMED"),
        (channel.EOF, errors.InvalidArgument, "MALFORMED"),
        (gzip.compress(named("a"), mtime=0), errors.Unimplemented, "COMPRESSED"),
    ],
)
async def test_a_request_that_is_no_request_is_refused(path: str, message: Any, kind: type, reason: str) -> None:
    with pytest.raises(errors.MeshError) as caught:
        await ask(Health(), path, Context(message))
    assert (type(caught.value), caught.value.reason) == (kind, reason)


def test_every_method_of_the_contract_is_there() -> None:
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    assert set(PATHS) == {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert all(Health().service(Details(path)) for path in PATHS)
    assert Health().service(Details("/grpc.health.v1.Health/Kill")) is None
