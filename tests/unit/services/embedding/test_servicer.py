"""EmbeddingService over a tiny random model: results, every option, every field's range."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from meshgate.errors import InvalidArgument, MeshError, NotFound
from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import models_pb2, priority_pb2
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, EngineConfig, ModelConfig
from services.embedding.servicer import EmbeddingServicer
from services.models.listing import ModelServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert

TEXTS = ["hello", "a much longer text of several words", "x", "middle sized one"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
async def app(directory: Path) -> AsyncIterator[App]:
    nowhere = tls.TlsConfig(certificate=directory, key=directory, ca=directory)
    model = ModelConfig(source=str(directory), name="tiny", aliases=("small",), dtype="float32", device="cpu")
    config = EmbeddingConfig(server=ServerConfig(tls=nowhere), model=model, engine=EngineConfig(max_batch=8))
    made = App(config)
    await made.start()
    yield made
    await made.stop(1)


@pytest.fixture
def servicer(app: App) -> EmbeddingServicer:
    return EmbeddingServicer(app._slot)


def request(*texts: str, model: str = "", **options: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(model=model, inputs=texts, options=pb.EmbedOptions(**options))


async def vectors(servicer: EmbeddingServicer, asked: pb.EmbedRequest) -> np.ndarray[Any, Any]:
    reply = await servicer.Embed(asked, FakeContext())  # type: ignore[arg-type]
    return np.array([embedding.floats.values for embedding in reply.embeddings])


def reference(directory: Path, text: str) -> np.ndarray[Any, Any]:
    """Token states [tokens, dimensions] of one text, by transformers alone."""
    tokeniser, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    with torch.inference_mode():
        states: Any = model(**tokeniser(text, return_tensors="pt")).last_hidden_state[0]
    return np.asarray(states)


async def test_batched_equals_one_by_one(servicer: EmbeddingServicer, directory: Path) -> None:
    got = await vectors(servicer, request(*TEXTS, normalise=False))
    for row, text in zip(got, TEXTS, strict=True):
        assert row == pytest.approx(reference(directory, text).mean(0), abs=1e-5)


@pytest.mark.parametrize(
    ("pooling", "pick"),
    [(pb.POOLING_CLS, lambda states: states[0]), (pb.POOLING_LAST, lambda states: states[-1])],
    ids=["cls", "last"],
)
async def test_other_poolings(servicer: EmbeddingServicer, directory: Path, pooling: Any, pick: Any) -> None:
    got = await vectors(servicer, request(*TEXTS, normalise=False, pooling=pooling))
    for row, text in zip(got, TEXTS, strict=True):
        assert row == pytest.approx(pick(reference(directory, text)), abs=1e-5)


async def test_norm_is_one_unless_refused(servicer: EmbeddingServicer) -> None:
    assert np.linalg.norm(await vectors(servicer, request("a")), axis=1) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(await vectors(servicer, request("a", dimensions=5)), axis=1) == pytest.approx(1, abs=1e-6)
    assert (await vectors(servicer, request("a", dimensions=5))).shape == (1, 5)


async def test_a_prompt_stands_before_the_text(servicer: EmbeddingServicer) -> None:
    named = await vectors(servicer, request("hello", prompt_name="query"))
    assert named == pytest.approx(await vectors(servicer, request("query: hello")))


async def test_tokens_usage_and_trailers(servicer: EmbeddingServicer) -> None:
    context = FakeContext()
    reply = await servicer.Embed(request("ab", "c"), context)  # type: ignore[arg-type]
    assert [embedding.tokens for embedding in reply.embeddings] == [4, 3]
    assert (reply.usage.input_tokens, reply.model, reply.dimensions) == (7, "tiny", 32)
    assert context.trailers == (("x-meshgate-usage", "7,0"),)


async def test_a_long_text_is_refused_or_cut_on_either_side(servicer: EmbeddingServicer) -> None:
    long = " ".join(["a"] * 60 + ["b"] * 60)
    with pytest.raises(InvalidArgument) as caught:
        await vectors(servicer, request("x", long))
    assert (caught.value.reason, caught.value.violations[0].field) == ("INPUT_TOO_LONG", "inputs[1]")
    end = await vectors(servicer, request(long, truncation=pb.TRUNCATION_END))
    start = await vectors(servicer, request(long, truncation=pb.TRUNCATION_START))
    assert end == pytest.approx(await vectors(servicer, request(" ".join(["a"] * 60 + ["b"] * 2))), abs=1e-5)
    assert start == pytest.approx(await vectors(servicer, request(" ".join(["a"] * 2 + ["b"] * 60))), abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (request(), "inputs"),
        (request(*["x"] * 9), "inputs"),
        (request("x", ""), "inputs[1]"),
        (request("x", dimensions=0), "options.dimensions"),
        (request("x", dimensions=33), "options.dimensions"),
        (request("x", prompt_name="nope"), "options.prompt_name"),
        (request("x", pooling=99), "options.pooling"),
        (request("x", truncation=99), "options.truncation"),
        (request("x", encoding=99), "options.encoding"),
        (request("x", priority=99), "options.priority"),
        (request("x", model="m" * 257), "model"),
    ],
)
async def test_what_is_out_of_range_is_named(servicer: EmbeddingServicer, asked: pb.EmbedRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await vectors(servicer, asked)
    assert caught.value.violations[0].field == field


async def test_models_answer_to_their_names(servicer: EmbeddingServicer) -> None:
    for name in ("", "tiny", "small"):
        await vectors(servicer, request("x", model=name, priority=priority_pb2.PRIORITY_BATCH))
    for name in ["other", "\x1b[2J\x1b[H", "a\nb", "\u202ebob", "é", "a" * 256]:
        with pytest.raises(NotFound) as caught:
            await vectors(servicer, request("x", model=name))
        assert caught.value.reason == "MODEL_NOT_FOUND"
        assert caught.value.message == f"no such model: {name!r}" and caught.value.message.isprintable()


async def test_a_token_cap_is_kept(servicer: EmbeddingServicer) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await servicer.Embed(request("abcd"), FakeContext(("x-meshgate-token-cap", "5")))  # type: ignore[arg-type]
    assert caught.value.reason == "TOKEN_CAP_EXCEEDED"


async def stream(servicer: EmbeddingServicer, *messages: pb.EmbedRequest) -> list[pb.EmbedStreamResponse]:
    async def requests() -> AsyncIterator[pb.EmbedStreamRequest]:
        for message in messages:
            yield pb.EmbedStreamRequest(request=message)

    return [reply async for reply in servicer.EmbedStream(requests(), FakeContext())]  # type: ignore[arg-type]


async def test_a_stream_answers_in_order_with_the_first_options(servicer: EmbeddingServicer) -> None:
    replies = await stream(servicer, request("one", dimensions=3), pb.EmbedRequest(inputs=["two", "three"]))
    assert [len(reply.response.embeddings) for reply in replies] == [1, 2]
    assert [reply.response.dimensions for reply in replies] == [3, 3]


@pytest.mark.parametrize(
    ("second", "field"),
    [(request("x", model="other"), "request.model"), (request("x", dimensions=4), "request.options")],
)
async def test_a_stream_keeps_model_and_options(
    servicer: EmbeddingServicer, second: pb.EmbedRequest, field: str
) -> None:
    with pytest.raises(MeshError) as caught:
        await stream(servicer, request("one", dimensions=3), second)
    assert isinstance(caught.value, InvalidArgument)
    assert caught.value.violations[0].field == field


async def test_the_model_lists_its_limits(app: App) -> None:
    context: Any = FakeContext()
    reply = await ModelServicer(lambda: app._slot.get().cards).ListModels(models_pb2.ListModelsRequest(), context)
    [model] = reply.models
    assert (model.max_input_tokens, model.max_batch, model.dimensions) == (64, 8, 32)
    assert list(model.prompt_names) == ["passage", "query"]
