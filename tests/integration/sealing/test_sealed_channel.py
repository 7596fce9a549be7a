"""A sealed channel before a gateway that misbehaves: keys that change, and replies that were tampered with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast, get_args

import grpc
import pytest

from meshgate import errors
from meshgate.client.failure import explain
from tests.support.network.scripted_client import Client, ask
from tests.support.network.scripted_gateway import ScriptedGateway, Tampering, scripted_gateway

TAMPERINGS = [how for how in get_args(Tampering) if how]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture(params=["blocking", "asyncio"])
async def client(gateway: ScriptedGateway, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    client = Client(gateway, tmp_path, request.param, sealed=True)
    yield client
    await client.close()


async def test_keys_are_listed_once(gateway: ScriptedGateway, client: Client) -> None:
    for _ in range(3):
        assert await client.generate("hi") == "hi"
    assert gateway.listings == 1


async def test_a_key_that_is_gone_is_asked_for_anew(gateway: ScriptedGateway, client: Client) -> None:
    await client.generate()
    gateway.rotate()
    assert await client.generate("unary") == "unary"
    gateway.rotate()
    assert await client.stream() == ["a", "b", "c"]
    assert gateway.listings == 3


async def test_a_gateway_that_never_knows_its_keys_is_asked_twice(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures = [errors.InvalidArgument("key", reason="SEAL_KEY_UNKNOWN")] * 5
    with pytest.raises(grpc.RpcError) as caught:
        await client.generate()
    assert explain(caught.value).reason == "SEAL_KEY_UNKNOWN"
    assert (gateway.calls, gateway.listings) == (2, 2)


async def test_no_envelope_is_sent_twice(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures = [errors.Unavailable("full", reason="OVERLOADED", retry_after=0.01)] * 2
    await client.generate()
    assert len(gateway.envelopes) == len(set(gateway.envelopes)) == 3


@pytest.mark.parametrize("how", TAMPERINGS)
async def test_a_stream_that_was_tampered_with_is_an_error(gateway: ScriptedGateway, client: Client, how: str) -> None:
    """Even though the gateway's status is OK. What was delivered before is what was sent, in order."""
    gateway.tampering = cast(Tampering, how)
    with pytest.raises(grpc.RpcError) as caught:
        await client.stream()
    error = explain(caught.value)
    assert isinstance(error, errors.Internal)
    assert error.reason == ("SEAL_TRUNCATED" if how == "cut" else "SEAL_INVALID")
    assert client.received == ["a", "b", "c"][: len(client.received)]
    assert gateway.calls == 1


@pytest.mark.parametrize(("how", "reason"), [("flipped", "SEAL_INVALID"), ("cut", "SEAL_TRUNCATED")])
async def test_a_reply_that_was_tampered_with_is_an_error(
    gateway: ScriptedGateway, client: Client, how: str, reason: str
) -> None:
    gateway.tampering = cast(Tampering, how)
    with pytest.raises(grpc.RpcError) as caught:
        await client.generate()
    assert explain(caught.value).reason == reason
    assert gateway.calls == 1


async def test_the_call_itself_knows_that_it_failed(gateway: ScriptedGateway, tmp_path: Path) -> None:
    gateway.tampering = "cut"
    client = Client(gateway, tmp_path, "asyncio", sealed=True)
    call = client.stub.Generate(ask())
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    assert await call.code() == grpc.StatusCode.INTERNAL
    await client.close()
    client = Client(gateway, tmp_path, "blocking", sealed=True)
    future = await asyncio.to_thread(client.stub.Generate.future, ask())
    failure = await asyncio.to_thread(future.exception, 20)
    assert explain(failure).reason == "SEAL_TRUNCATED"
    assert (future.code(), future.done()) == (grpc.StatusCode.INTERNAL, True)
    await client.close()


async def test_a_call_that_is_cancelled_before_it_begins(gateway: ScriptedGateway, tmp_path: Path) -> None:
    client = Client(gateway, tmp_path, "asyncio", sealed=True)
    call = client.stub.Generate(ask())
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await call.code(), call.cancelled()) == (grpc.StatusCode.CANCELLED, True)
    await client.close()
    assert gateway.calls == 0
