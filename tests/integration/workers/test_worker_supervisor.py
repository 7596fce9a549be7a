"""Workers: calls spread over them, a killed one costs its own calls, SIGTERM drains all, none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import grpc

from tests.support.network.gateway_workers import alive, end, gateway, logged, until

OK = grpc.StatusCode.OK


async def test_a_killed_worker_costs_its_own_calls_and_comes_back(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        async with running.connections() as stubs:
            streams = await asyncio.gather(*map(running.begin, stubs))
            os.kill(running.workers["0"], signal.SIGKILL)
            await until(lambda: bool(logged(tmp_path, "worker died")))
            async with running.connections() as others:
                assert {await running.generate(stub) for stub in others} == {OK}
            running.application.go_on.set()
            statuses = [await end(stream) for stream in streams]
        assert set(statuses) == {OK, grpc.StatusCode.UNAVAILABLE}
        await running.serving(3)
        before = running.records()
        async with running.connections() as stubs:
            assert {await running.generate(stub) for stub in stubs} == {OK}
        assert all(count > before[name] for name, count in running.records().items())


async def test_calls_spread_over_workers_and_sigterm_drains_them_all(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running, running.connections() as stubs:
        streams = await asyncio.gather(*map(running.begin, stubs))
        running.process.send_signal(signal.SIGTERM)
        await until(running.closed)
        running.application.go_on.set()
        assert {await end(stream) for stream in streams} == {OK}
        assert await asyncio.wait_for(running.process.wait(), 20) == 0
        assert not any(map(alive, running.workers.values()))
        records = running.records()
        assert set(records) == {"worker-0", "worker-1"}
        assert all(records.values())
        assert sum(records.values()) == len(streams)


async def test_no_worker_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        running.process.kill()
        await until(lambda: not any(map(alive, running.workers.values())))
