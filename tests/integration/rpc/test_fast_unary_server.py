"""Unary calls served without grpc.aio's layers: what they promise, on a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from meshgate.rpc.private import fast_unary_server, shield

METHOD = "/test.Test/Do"
BIG = bytes(1_000_000)


class Service(grpc.GenericRpcHandler):
    """Answers by what the request says; notes who left."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.release = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_unary_rpc_method_handler(self._serve)

    async def _serve(self, _: Any, context: Any) -> bytes:
        self.arrived.set()
        request: Any = await context.read()
        if request == b"hold":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.left.set()
                raise
        if request == b"bug":
            raise ValueError("a secret")
        if request == b"refuse":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no", (("x-why", "because"),))
        context.set_trailing_metadata((("x-took", "3"),))
        return bytes(request) * 2


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Any, Service, grpc.aio.Server]]:
    service = Service()
    made = shield.server(())
    shield.register(made, service, (METHOD,))
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    options = (("grpc.max_receive_message_length", -1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield channel.unary_unary(METHOD), service, made
    await made.stop(None)


async def test_a_call_is_answered_with_its_trailers() -> None:
    async with served() as (do, _, _):
        call = do(b"ab", timeout=10)
        assert await call == b"abab"
        assert ("x-took", "3") in tuple(await call.trailing_metadata())
        assert await call.code() is grpc.StatusCode.OK


async def test_many_at_once_and_large_ones() -> None:
    async with served() as (do, _, _):
        answers = await asyncio.gather(*(do(BIG[: 10_000 * n], timeout=30) for n in range(50)))
        assert [len(answer) for answer in answers] == [20_000 * n for n in range(50)]


async def test_a_refusal_is_the_handlers_own() -> None:
    async with served() as (do, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await do(b"refuse", timeout=10)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "no"
        assert ("x-why", "because") in tuple(caught.value.trailing_metadata() or ())


async def test_of_a_bug_the_caller_hears_nothing() -> None:
    async with served() as (do, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await do(b"bug", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(caught.value)
        assert await do(b"ab", timeout=10) == b"abab"


async def test_who_leaves_ends_the_work() -> None:
    async with served() as (do, service, _):
        call = do(b"hold", timeout=60)
        await service.arrived.wait()
        call.cancel()
        await asyncio.wait_for(service.left.wait(), 20)


async def test_who_leaves_late_ends_the_work_and_no_other() -> None:
    async with served() as (do, service, _):
        first, stays, leaves = (asyncio.ensure_future(do(b"hold", timeout=60)) for _ in range(3))
        await service.arrived.wait()
        for call in (first, leaves):  # once the first is heard to have left, the others are not young any more
            service.left.clear()
            call.cancel()
            await asyncio.wait_for(service.left.wait(), 20)
        service.release.set()
        assert await stays == b"holdhold"


@pytest.mark.parametrize(("request_", "listened"), [(b"ab", 0), (b"refuse", 1), (b"bug", 1)])
async def test_the_end_of_a_young_call_is_heard_once_and_it_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, request_: bytes, listened: int
) -> None:
    """That of one that is answered comes with its last batch."""
    heard: list[Any] = []
    listen = fast_unary_server._listen

    def counted(*call: Any) -> None:
        heard.append(call)
        listen(*call)

    monkeypatch.setattr(fast_unary_server, "_listen", counted)
    async with served() as (do, _, server):
        with suppress(grpc.aio.AioRpcError):
            await do(request_, timeout=10)
        inner: Any = server._server  # type: ignore[attr-defined]
        await asyncio.gather(*inner._calls)
        assert len(heard) == listened
        assert not inner._unaries._young
        assert not inner._unaries._older


async def test_a_deadline_ends_the_work() -> None:
    async with served() as (do, service, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await do(b"hold", timeout=2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(service.left.wait(), 20)


async def test_a_stop_waits_for_what_runs_and_then_ends_it() -> None:
    async with served() as (do, service, server):
        call = asyncio.ensure_future(do(b"hold", timeout=60))
        await service.arrived.wait()
        stopping = asyncio.ensure_future(server.stop(30))
        service.release.set()
        assert await call == b"holdhold"
        await asyncio.wait_for(stopping, 20)


async def test_a_stop_without_grace_ends_what_runs() -> None:
    async with served() as (do, service, server):
        call = asyncio.ensure_future(do(b"hold", timeout=60))
        await service.arrived.wait()
        await asyncio.wait_for(server.stop(None), 20)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        await asyncio.wait_for(service.left.wait(), 20)
