"""Retries: overload is tried again as the gateway asks, plain or sealed; limits, failures and begun streams are not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from meshgate import errors
from meshgate.client.failure import explain
from tests.support.network.scripted_client import Client
from tests.support.network.scripted_gateway import ScriptedGateway, scripted_gateway

SOON = errors.Unavailable("full", reason="OVERLOADED", retry_after=0.01)
DRAINING = errors.Unavailable("draining", reason="DRAINING", retry_after=0.01)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture(params=["blocking plain", "blocking sealed", "asyncio plain", "asyncio sealed"])
async def client(gateway: ScriptedGateway, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    kind, _, form = request.param.partition(" ")
    client = Client(gateway, tmp_path, kind, sealed=form == "sealed")
    yield client
    await client.close()


async def test_overload_is_tried_again(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures = [SOON, DRAINING]
    assert await client.generate() == "hello"
    assert gateway.calls == 3


async def test_a_stream_that_delivered_nothing_is_tried_again(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures = [SOON, DRAINING]
    assert await client.stream() == ["a", "b", "c"]
    assert gateway.calls == 3


async def test_attempts_are_few(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures = [SOON] * 10
    with pytest.raises(grpc.RpcError) as caught:
        await client.generate()
    assert explain(caught.value).reason == "OVERLOADED"
    assert gateway.calls == 4


async def test_a_stream_that_has_begun_is_not_tried_again(gateway: ScriptedGateway, client: Client) -> None:
    gateway.after_first = SOON
    with pytest.raises(grpc.RpcError) as caught:
        await client.stream()
    assert explain(caught.value).reason == "OVERLOADED"
    assert (client.received, gateway.calls) == (["a"], 1)


@pytest.mark.parametrize(
    "error",
    [
        errors.LimitExceeded("limit", retry_after=0.01),
        errors.InvalidArgument("wrong"),
        errors.Internal("ours"),
        errors.Unauthenticated("who"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_nothing_else_is_tried_again(gateway: ScriptedGateway, client: Client, error: errors.MeshError) -> None:
    gateway.failures = [error]
    with pytest.raises(grpc.RpcError) as caught:
        await client.generate()
    assert type(explain(caught.value)) is type(error)
    assert gateway.calls == 1


async def test_the_deadline_spans_all_attempts(gateway: ScriptedGateway, client: Client) -> None:
    await client.generate()  # connected, and the keys are there: what comes next arrives in its time
    gateway.failures = [errors.Unavailable("full", reason="OVERLOADED", retry_after=30)] * 3
    with pytest.raises(grpc.RpcError) as caught:
        await client.generate(timeout=2)
    assert isinstance(explain(caught.value), errors.Unavailable | errors.DeadlineExceeded)
    assert gateway.calls == 2
