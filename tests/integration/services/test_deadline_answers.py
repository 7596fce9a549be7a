"""An answer that runs into its caller's deadline is returned as far as it was made, however long a step of the model
takes: unary and streamed, with several candidates, of both kinds of models, in the clear and sealed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshgate import client
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from tests.support.network import mesh as meshes
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.seq2seq import build_tiny_marian

CALLS = 4
SECONDS = 2.0
MODELS = {"llama": "tell me", "translator": "the lazy dog"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GenerationConfig:
    folder = tmp_path_factory.mktemp("models")
    first, second = build_tiny_llama(folder / "llama"), build_tiny_marian(folder / "marian")
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    return GenerationConfig.model_validate(
        {
            "server": {"tls": tls},
            "model": {"source": str(first), "name": "llama", "dtype": "float32"},
            "models": [{"source": str(second), "name": "translator", "dtype": "float32", "max_output_tokens": 90}],
            "engine": {"max_batch": 16, "threads": 1},
        }
    )


def slowed(app: App, seconds: float) -> None:
    """Every decode of every model takes so long from here on, and no token ends an answer."""
    for name in MODELS:
        scheduler: Any = app._slot.get().find(name).engine._scheduler  # type: ignore[attr-defined]
        scheduler._candidates._end_tokens = frozenset()
        decode = scheduler._model.decode

        def slow(*arguments: Any, decode: Any = decode) -> Any:
            time.sleep(seconds)
            return decode(*arguments)

        scheduler._model.decode = slow


@asynccontextmanager
async def running(home: Path, config: GenerationConfig, step: float, sealed: Any) -> AsyncIterator[Any]:
    app = build(config)
    async with meshes.mesh(home, {"generation": app}) as mesh:
        slowed(app, step)
        ca = home / "certs" / "ca.pem"
        async with client.connect_aio(mesh.target, ca=ca, token=mesh.token(), sealed=sealed) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            await stub.CountTokens(pb.CountTokensRequest(model="llama", prompt="keys are known now"))
            yield stub


def request(model: str, candidates: int) -> pb.GenerateRequest:
    return pb.GenerateRequest(model=model, prompt=MODELS[model], max_output_tokens=90, candidate_count=candidates)


Ends = tuple[set[int], int]


async def whole(stub: Any, model: str, candidates: int) -> Ends:
    """The finish reasons and the tokens of one call."""
    reply = await stub.Generate(request(model, candidates), timeout=SECONDS)
    return {each.finish.reason for each in reply.candidates}, min(len(each.token_ids) for each in reply.candidates)


async def streamed(stub: Any, model: str, candidates: int) -> Ends:
    tokens, ends = [0] * candidates, set()
    wanted = pb.GenerateStreamRequest(request=request(model, candidates))
    async for reply in stub.GenerateStream(wanted, timeout=SECONDS):
        for delta in reply.deltas:
            tokens[delta.index] += len(delta.token_ids)
            ends |= {delta.finish.reason} if delta.HasField("finish") else set()
    return ends, min(tokens)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("step", "sealed"), [(0.03, False), (0.03, True), (0.03, "service"), (0.15, False)])
async def test_what_was_made_is_returned(
    tmp_path: Path, config: GenerationConfig, step: float, sealed: Any, model: str
) -> None:
    async with running(tmp_path, config, step, sealed) as stub:
        single = [ask(stub, model, 1) for ask in (whole, streamed) for _ in range(CALLS)]
        several = [ask(stub, model, 3) for ask in (whole, streamed)]
        for ends, tokens in await asyncio.gather(*single, *several):
            assert (ends, tokens > 0) == ({pb.FINISH_REASON_CANCELLED}, True)
