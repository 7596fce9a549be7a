"""A limit is the same however many workers share it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc

from tests.support.network.gateway_workers import gateway

BURST = 40


async def test_limits_hold_across_workers(tmp_path: Path) -> None:
    async with gateway(tmp_path, burst=BURST) as running, running.connections() as stubs:
        begun = time.monotonic()
        statuses = await asyncio.gather(*(running.generate(stub) for stub in stubs * 8))
        earned = time.monotonic() - begun
        assert set(statuses) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert BURST <= statuses.count(grpc.StatusCode.OK) <= BURST + earned + 1
        assert all(running.records().values())
