"""Sealed calls do not care which worker they reach: keys are the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc

from meshgate.client import keys
from meshgate.rpc import status
from meshgate.sealing import codec
from meshgate.v1 import generation_pb2, sealed_pb2, sealed_pb2_grpc
from tests.support.network.gateway_workers import Gateway, gateway

METHOD = "/meshgate.v1.GenerationService/Generate"


def envelope(listed: sealed_pb2.ListSealingKeysResponse) -> sealed_pb2.CallRequest:
    key = keys.KeyCache(frozenset(), lambda: 0).take(listed.keys)
    message = generation_pb2.GenerateRequest(prompt="hello").SerializeToString()
    now_ms = time.time_ns() // 1_000_000
    sealed, _ = codec.seal_request(
        key, message, method=METHOD, tenant="acme", subject="alice", token_cap=100, now_ms=now_ms
    )
    return sealed_pb2.CallRequest(envelope=sealed)


async def reason(running: Gateway, channel: Any, request: sealed_pb2.CallRequest) -> str:
    """Why a sealed call is refused; "" when it is not."""
    try:
        await sealed_pb2_grpc.SealedServiceStub(channel).Call(request, metadata=running.metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error).reason
    return ""


async def test_a_key_of_one_worker_is_every_workers(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running, running.channels() as channels:
        for channel in channels:
            keyring: Any = sealed_pb2_grpc.KeyServiceStub(channel)
            listed = await keyring.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=running.metadata)
            assert await reason(running, channels[0], envelope(listed)) == ""
        assert len(list((tmp_path / "keys" / "sealing").iterdir())) == len(codec.SUITES)
