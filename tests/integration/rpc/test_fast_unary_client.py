"""Unary calls made without grpc.aio's call objects: what they promise, on a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from meshgate.rpc.private.fast_unary_client import FastUnaryClient

METHOD = b"/test.Test/Do"


class Service(grpc.GenericRpcHandler):
    """Answers by what the request says; notes what came and who left."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.release = asyncio.Event()
        self.metadata: dict[str, Any] = {}
        self.remaining: float | None = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._serve)

    async def _serve(self, request: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        self.arrived.set()
        if request == b"hold":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.left.set()
                raise
        context.set_trailing_metadata((("x-took", "3"), ("x-raw-bin", b"\xff")))
        if request == b"fail":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no", (("x-why", "because"),))
        return request * 2


@asynccontextmanager
async def served() -> AsyncIterator[tuple[FastUnaryClient, Service, grpc.aio.Channel]]:
    made = grpc.aio.server()
    service = Service()
    made.add_generic_rpc_handlers((service,))
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield FastUnaryClient(channel), service, channel
    await made.stop(None)


async def test_a_call_returns_the_reply_and_the_trailers() -> None:
    async with served() as (unary, service, _):
        answer = await unary.call(METHOD, b"ab", 10, (("x-tenant", "acme"), ("x-sub-bin", b"\x00\xff")))
        assert answer.reply == b"abab"
        assert dict(answer.trailers) == {"x-took": "3", "x-raw-bin": b"\xff"}
        assert service.metadata["x-tenant"] == "acme"
        assert service.metadata["x-sub-bin"] == b"\x00\xff"
        assert service.remaining is not None
        assert 5 < service.remaining <= 10.2  # gRPC rounds what it sends up


async def test_an_empty_reply_is_a_reply() -> None:
    async with served() as (unary, _, _):
        assert (await unary.call(METHOD, b"", 10, ())).reply == b""


async def test_a_failure_is_grpcs_own_error() -> None:
    async with served() as (unary, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary.call(METHOD, b"fail", 10, ())
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "no"
        assert ("x-why", "because") in tuple(caught.value.trailing_metadata())


async def test_a_deadline_ends_it() -> None:
    async with served() as (unary, service, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary.call(METHOD, b"hold", 2, ())
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(service.left.wait(), 20)


async def test_who_is_cancelled_cancels_the_call() -> None:
    async with served() as (unary, service, _):
        task = asyncio.create_task(unary.call(METHOD, b"hold", 60, ()))
        await service.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(service.left.wait(), 20)


async def test_a_drain_waits_for_what_is_under_way() -> None:
    async with served() as (unary, service, _):
        task = asyncio.create_task(unary.call(METHOD, b"hold", 60, ()))
        await service.arrived.wait()
        draining = asyncio.create_task(unary.drain(60))
        await asyncio.sleep(0)
        assert not draining.done()
        service.release.set()
        assert (await task).reply == b"holdhold"
        await asyncio.wait_for(draining, 20)


async def test_a_drain_ends_what_takes_too_long() -> None:
    async with served() as (unary, service, channel):
        task = asyncio.create_task(unary.call(METHOD, b"hold", 60, ()))
        await service.arrived.wait()
        await unary.drain(0)
        await channel.close(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await task
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        await asyncio.wait_for(service.left.wait(), 20)


async def test_nobody_there_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await FastUnaryClient(channel).call(METHOD, b"", 5, ())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
