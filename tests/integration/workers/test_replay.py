"""An envelope opens once in all workers together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshgate.v1 import sealed_pb2, sealed_pb2_grpc
from tests.integration.workers.test_sealed_calls import envelope, reason
from tests.support.network.gateway_workers import gateway


async def test_an_envelope_opens_in_one_worker_once(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running, running.channels() as channels:
        keyring: Any = sealed_pb2_grpc.KeyServiceStub(channels[0])
        listed = await keyring.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=running.metadata)
        request = envelope(listed)
        reasons = [await reason(running, channel, request) for channel in channels]
        assert reasons == ["", *["SEAL_REPLAYED"] * (len(channels) - 1)]
