"""The concurrency slots of a killed worker come back: real processes, a real Valkey, SIGKILL."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.network import gateway_workers
from tests.support.network.valkey import until

STREAMS = 4


def short(home: Path, **settings: Any) -> Path:
    """The shipped configuration with few places and short leases."""
    path = shipped(home, **settings)
    text = path.read_text().replace("concurrent_streams = 200", f"concurrent_streams = {STREAMS}")
    assert f"concurrent_streams = {STREAMS}\n" in text
    path.write_text(text + "\n[limits]\nlease_seconds = 4\n")
    return path


shipped = gateway_workers.shipped


async def test_the_places_of_a_killed_worker_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_workers, "shipped", short)
    async with gateway_workers.gateway(tmp_path) as running, running.connections() as stubs:
        for stub in stubs[:STREAMS]:
            await running.begin(stub)

        async def place(stub: Any) -> grpc.StatusCode:
            try:
                await running.begin(stub)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        assert await place(stubs[-1]) == grpc.StatusCode.RESOURCE_EXHAUSTED
        for pid in running.workers.values():
            os.kill(pid, signal.SIGKILL)
        await running.serving(4)

        async def again() -> bool:
            return await place(stubs[-1]) == grpc.StatusCode.OK

        await until(again, 30)
