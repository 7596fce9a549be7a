"""A limit is the same however many workers share it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from tests.integration.workers import gateway

BURST = 40


@pytest.mark.xfail(reason="limits are still kept by each worker alone, whatever the store", strict=True)
async def test_limits_hold_across_workers(tmp_path: Path) -> None:
    async with gateway(tmp_path, burst=BURST) as running, running.connections() as stubs:
        begun = time.monotonic()
        statuses = await asyncio.gather(*(running.generate(stub) for stub in stubs * 8))
        earned = time.monotonic() - begun
        assert set(statuses) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert BURST <= statuses.count(grpc.StatusCode.OK) <= BURST + earned + 1
        assert all(running.records().values())
