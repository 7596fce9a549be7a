"""Long texts of one tenant, over real mutual TLS: another tenant does not wait for them, and they are paid for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from meshgate import errors
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc
from services.embedding.app import App as Embedding
from services.embedding.config import EmbeddingConfig
from services.generation.app import App as Generation
from services.generation.config import GenerationConfig
from tests.support.network.mesh import Mesh, mesh, refused
from tests.tinymodels.bert import build_tiny_bert
from tests.tinymodels.llama import build_tiny_llama

MIB = 1_048_576
TLS = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
TEXTS = {"words": ("hello " * MIB)[:MIB], "signs": "!" * MIB, "chinese": "我喜欢编程。" * (MIB // 18)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    home = tmp_path_factory.mktemp("home")
    services: dict[str, Any] = {
        "generation": Generation(
            GenerationConfig.model_validate(
                {
                    "server": {"tls": TLS},
                    "model": {"source": str(build_tiny_llama(home / "llama")), "name": "tiny", "dtype": "float32"},
                    "engine": {"max_batch": 2, "max_queue": 8, "threads": 1},
                }
            )
        ),
        "embedding": Embedding(
            EmbeddingConfig.model_validate(
                {
                    "server": {"tls": TLS},
                    "model": {"source": str(build_tiny_bert(home / "bert")), "dtype": "float32", "device": "cpu"},
                    "engine": {"threads": 1},
                }
            )
        ),
    }
    limits = {"tenants": {"paying": {"principal": {"tokens_per_minute": 100_000}}}}
    async with mesh(home, services, limits=limits) as running:
        yield running


def counting(text: str, times: int) -> generation_pb2.CountTokensRequest:
    turns = [generation_pb2.Message(role=generation_pb2.ROLE_USER, content=text)] * times
    return generation_pb2.CountTokensRequest(conversation=generation_pb2.Conversation(messages=turns))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", [TEXTS["words"], TEXTS["signs"][: MIB // 8]], ids=["words", "signs"])
async def test_what_others_have_counted_keeps_nobody_waiting(made: Mesh, text: str) -> None:
    """A bystander counts again and again while one tenant's four long conversations are read."""
    async with made.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        attacker, bystander = made.auth(made.token(tenant="heavy")), made.auth(made.token(tenant="light"))
        calls = [stub.CountTokens(counting(text, 2), metadata=attacker) for _ in range(4)]
        gathered = asyncio.gather(*(call for call in calls), return_exceptions=True)
        waits = []
        while not gathered.done():
            began = time.monotonic()
            await stub.CountTokens(generation_pb2.CountTokensRequest(prompt="hi"), metadata=bystander)
            waits.append(time.monotonic() - began)
        results = await gathered
    assert len(waits) >= 5, "it was answered while they were read"
    assert max(waits) < 5
    counted = [result.input_tokens for result in results if not isinstance(result, BaseException)]
    assert len(counted) >= 3
    assert len(set(counted)) == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", TEXTS)
async def test_counting_is_charged_by_size_before_it_is_done(made: Mesh, text: str) -> None:
    async with made.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        auth = made.auth(made.token(tenant="paying", subject=text))
        error = await refused(stub.CountTokens(generation_pb2.CountTokensRequest(prompt=TEXTS[text]), metadata=auth))
        assert (type(error), error.reason) == (errors.InvalidArgument, "INPUT_TOO_LONG")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", TEXTS)
async def test_a_prompt_that_can_not_fit_is_refused_soon(made: Mesh, text: str) -> None:
    async with made.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt=TEXTS[text])
        error = await refused(stub.Generate(request, metadata=made.auth()))
        assert (type(error), error.reason) == (errors.InvalidArgument, "INPUT_TOO_LONG")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("truncation", [embedding_pb2.TRUNCATION_END, embedding_pb2.TRUNCATION_START])
async def test_texts_that_are_cut_are_hardly_read(made: Mesh, text: str, truncation: Any) -> None:
    """The tiny model takes 64 tokens: what it is given of 4 MiB is the same as of a few bytes."""
    async with made.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        options = embedding_pb2.EmbedOptions(truncation=truncation)
        request = embedding_pb2.EmbedRequest(inputs=[TEXTS[text]] * 4, options=options)
        reply = await stub.Embed(request, metadata=made.auth())
    assert [each.truncated for each in reply.embeddings] == [True] * 4
    assert reply.usage.input_tokens == 4 * 64


@pytest.mark.asyncio(loop_scope="module")
async def test_who_leaves_is_not_read_on_for(made: Mesh) -> None:
    application: Any = made.services["generation"]._application
    served = application._slot.get().default
    async with made.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.CountTokens(counting(TEXTS["words"], 7), metadata=made.auth(), timeout=60)
        await _until(lambda: served.tokenising.room.held > 0)
        call.cancel()
        await _until(lambda: served.tokenising.room.held == 0)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells of what the service has in hand
            await asyncio.sleep(0.005)
