"""A translator beside a causal model behind a gateway, over real mutual TLS: the same methods, limits and records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshgate import errors
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc, models_pb2, models_pb2_grpc
from services.generation.app import build
from services.generation.config import GenerationConfig
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.seq2seq import PLACES, build_tiny_marian

TEXTS = [
    "the lazy dog",
    "a model",
    "Das Haus ist wunderbar",
    "summarize: the house",
    "ein naïves Café",
    "x",
    "writes",
    "0",
]
MOST = 24


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GenerationConfig:
    folder = tmp_path_factory.mktemp("models")
    first, second = build_tiny_llama(folder / "llama"), build_tiny_marian(folder / "marian")
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    return GenerationConfig.model_validate(
        {
            "server": {"tls": tls},
            "model": {"source": str(first), "name": "llama", "dtype": "float32"},
            "models": [{"source": str(second), "name": "translator", "dtype": "float32", "max_output_tokens": MOST}],
            "engine": {"max_batch": 8, "threads": 1},
        }
    )


@asynccontextmanager
async def running(home: Path, config: GenerationConfig, budget: int) -> AsyncIterator[tuple[Mesh, Any, Any]]:
    """A gateway with `budget` tokens for the tenant, one more each minute."""
    limits = {"tenant": {"tokens_per_minute": 1, "token_burst": budget}}
    async with (
        meshes.mesh(home, {"generation": build(config)}, limits=limits) as mesh,
        mesh.channel() as channel,
    ):
        yield mesh, generation_pb2_grpc.GenerationServiceStub(channel), models_pb2_grpc.ModelServiceStub(channel)


def ask(text: str, **fields: Any) -> pb.GenerateRequest:
    defaults: dict[str, Any] = {"sampling": pb.Sampling(temperature=0), "max_output_tokens": MOST}
    return pb.GenerateRequest(model="translator", prompt=text, **(defaults | fields))


async def test_eight_at_once_are_as_alone_and_one_who_leaves_harms_none(
    config: GenerationConfig, tmp_path: Path
) -> None:
    async with running(tmp_path, config, 5000) as (mesh, stub, models):

        async def whole(text: str) -> list[int]:
            reply = await stub.Generate(ask(text), metadata=mesh.auth(), timeout=60)
            return list(reply.candidates[0].token_ids)

        async def leave(text: str) -> None:
            request = pb.GenerateStreamRequest(request=ask(text, candidate_count=2))
            call = stub.GenerateStream(request, metadata=mesh.auth(), timeout=60)
            await call.read()
            call.cancel()

        alone = [await whole(text) for text in TEXTS]
        together = await asyncio.gather(*map(whole, TEXTS), leave(TEXTS[0]))
        assert together[:-1] == alone
        cards = (await models.ListModels(models_pb2.ListModelsRequest(), metadata=mesh.auth())).models
        card = next(each for each in cards if each.name == "translator")
        assert (card.max_source_tokens, card.max_input_tokens) == (PLACES, PLACES + MOST)
        conversation = pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, content="hi")])
        request = pb.GenerateRequest(model="translator", conversation=conversation)
        error = await meshes.refused(stub.Generate(request, metadata=mesh.auth(), timeout=60))
        assert isinstance(error, errors.InvalidArgument)
        assert [each.field for each in error.violations] == ["conversation"]


async def test_what_is_reserved_bounds_what_is_taken(config: GenerationConfig, tmp_path: Path) -> None:
    full = pb.TokenIds(ids=[5] * PLACES)
    taken = PLACES + 2 * MOST
    async with running(tmp_path, config, taken) as (mesh, stub, _):
        request = ask("", candidate_count=2)
        request.token_ids.CopyFrom(full)
        reply = await stub.Generate(request, metadata=mesh.auth(), timeout=60)
        assert [each.finish.reason for each in reply.candidates] == [pb.FINISH_REASON_LENGTH] * 2
        record = mesh.records()[-1]
        assert (record["input_tokens"], record["output_tokens"]) == (PLACES, 2 * MOST)
        assert record["tokens_reserved"] == taken
        error = await meshes.refused(stub.Generate(request, metadata=mesh.auth(), timeout=60))
        assert isinstance(error, errors.LimitExceeded)
