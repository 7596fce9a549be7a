"""A model in two parts, one a process, as torchrun starts them: it answers as it does whole, and ends as one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate.rpc import channel, status, tls
from meshgate.runtime.config import ConfigError
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from services.generation import app
from services.generation.config import EngineConfig, GenerationConfig, ModelConfig
from services.generation.parallel import sharding
from tests.support.network import mesh as meshes
from tests.support.network.ports import free_ports
from tests.tinymodels.llama import build_tiny_llama

SERVICE = "meshgate.v1.GenerationService"
PROMPTS = ("the quick brown fox", "a model of", "x")
_TOML = """
[server]
listen = "127.0.0.1:{port}"
[server.tls]
certificate = "{certs}/generation.pem"
key = "{certs}/generation-key.pem"
ca = "{certs}/ca.pem"
[server.peers]
"/meshgate.v1.*" = ["{gateway}"]
"/grpc.health.v1.*" = ["{gateway}"]
[model]
source = "{model}"
device = "cpu"
dtype = "float32"
[engine]
max_batch = 4
tensor_parallel = 2
"""


Started = tuple[Any, list[asyncio.subprocess.Process]]
"""A channel to the service as the gateway has one, and the processes that were started."""


@asynccontextmanager
async def started(home: Path, model: Path, *commands: tuple[str, dict[str, str]]) -> AsyncIterator[Started]:
    """Processes of one service: for each the words between `python -m` and its configuration, and what its environment
    has more. All are gone afterwards.
    """
    [port], path = free_ports(1), home / "generation.toml"
    path.write_text(_TOML.format(port=port, certs=home / "certs", gateway=meshes.GATEWAY_ID, model=model))
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words.split(), "--config", str(path)), env={**os.environ, **more}
        )
        for words, more in commands
    ]
    credentials = tls.channel_credentials(meshes.identity(home, "gateway"))
    try:
        async with channel.open_channel(f"127.0.0.1:{port}", credentials, part="generation") as opened:
            yield opened, processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))


async def health(opened: Any) -> AsyncIterator[int]:
    """The service's health whenever it changes, until the service is gone."""
    stub: Any = health_pb2_grpc.HealthStub(opened)
    try:
        async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), wait_for_ready=True):
            yield reply.status
    except grpc.aio.AioRpcError:
        return


async def generated(opened: Any) -> list[str]:
    """What is said to each prompt, at the same time, greedily."""
    stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
    sampling = generation_pb2.Sampling(temperature=0)
    requests = [
        generation_pb2.GenerateRequest(prompt=prompt, sampling=sampling, max_output_tokens=24) for prompt in PROMPTS
    ]
    replies = await asyncio.gather(*(stub.Generate(request, timeout=30) for request in requests))
    return [reply.candidates[0].text for reply in replies]


async def whole(home: Path, model: Path) -> list[str]:
    """The same of the model in one process."""
    config = GenerationConfig.model_validate(
        {
            "server": {"tls": meshes.identity(home, "generation").model_dump()},
            "model": ModelConfig.model_validate({"source": str(model), "device": "cpu", "dtype": "float32"}),
            "engine": EngineConfig.model_validate({"max_batch": 4}),
        }
    )
    async with meshes.serving(home, "generation", app.build(config)) as server:
        credentials = tls.channel_credentials(meshes.identity(home, "gateway"))
        async with channel.open_channel(f"127.0.0.1:{server.port}", credentials, part="generation") as opened:
            return await generated(opened)


async def serving(opened: Any) -> AsyncIterator[int]:
    """Health from when it is SERVING on."""
    states = health(opened)
    async for state in states:
        if state == health_pb2.HealthCheckResponse.SERVING:
            break
    return states


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Path]:
    meshes.prepare(tmp_path)
    return tmp_path, build_tiny_llama(tmp_path / "model")


async def test_two_ranks_say_what_one_process_says_and_drain_as_one(prepared: tuple[Path, Path]) -> None:
    expected = await whole(*prepared)
    torchrun: tuple[str, dict[str, str]] = (
        "torch.distributed.run --standalone --nproc-per-node 2 -m services.generation",
        {},
    )
    async with asyncio.timeout(90), started(*prepared, torchrun) as (opened, (launcher,)):
        states = await serving(opened)
        assert await generated(opened) == expected
        assert len(set(expected)) == len(PROMPTS)
        launcher.send_signal(signal.SIGTERM)  # torchrun passes it on to every rank
        assert [state async for state in states] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        await launcher.wait()


async def test_a_rank_that_is_killed_within_a_step_ends_the_service(prepared: tuple[Path, Path]) -> None:
    """Without torchrun, which would end the first rank too: here it has to find out by itself."""
    [port] = free_ports(1)
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [("services.generation", {**meeting, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    async with asyncio.timeout(90), started(*prepared, *ranks) as (opened, (first, second)):
        states = await serving(opened)
        stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
        request = generation_pb2.GenerateRequest(prompt="x", max_output_tokens=240)
        stream = stub.GenerateStream(generation_pb2.GenerateStreamRequest(request=request), timeout=30)
        await stream.read()
        second.kill()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            while await stream.read() is not channel.EOF:
                pass
        assert status.from_rpc_error(refused.value).reason == "MODEL_FAILED"
        assert [state async for state in states] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        assert await first.wait() == 1


def test_a_model_whose_heads_do_not_divide_is_refused() -> None:
    class Text:
        num_attention_heads, num_key_value_heads = 4, 2

    with pytest.raises(ConfigError, match="4 does not divide the model's 2 num_key_value_heads"):
        sharding._check_heads(Text(), 4)
