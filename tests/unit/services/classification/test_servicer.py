"""ClassificationService over tiny random models: results, scores, every field's range."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from meshgate.errors import InvalidArgument, NotFound
from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.v1 import classification_pb2 as pb
from services.classification.app import App
from services.classification.config import ClassificationConfig, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.servicer import ClassificationServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classification")
    for name, build in (("bert", build_tiny_bert), ("classifier", build_tiny_classifier)):
        (root / name).mkdir()
        build(root / name)
    return root


@pytest.fixture
async def servicer(directory: Path) -> AsyncIterator[ClassificationServicer]:
    nowhere = tls.TlsConfig(certificate=directory, key=directory, ca=directory)
    config = ClassificationConfig(
        server=ServerConfig(tls=nowhere),
        classifiers=(ClassifierConfig(source=str(directory / "classifier"), name="colour", aliases=("hue",)),),
        zero_shot=ZeroShotConfig(source=str(directory / "bert"), name="any", max_input_tokens=64),
        engine=EngineConfig(max_batch=8, dtype="float32", device="cpu"),
    )
    app = App(config)
    await app.start()
    yield ClassificationServicer(app._slot)
    await app.stop(1)


def item(text: str, pair: str = "") -> pb.ClassificationInput:
    return pb.ClassificationInput(text=text, text_pair=pair)


def request(*texts: str, model: str = "", labels: tuple[str, ...] = (), **options: Any) -> pb.ClassifyRequest:
    made = pb.ClassifyRequest(model=model, inputs=map(item, texts), options=pb.ClassifyOptions(**options))
    if labels:
        made.candidate_labels.labels.extend(pb.CandidateLabel(name=name) for name in labels)
    return made


async def classify(servicer: ClassificationServicer, asked: pb.ClassifyRequest) -> pb.ClassifyResponse:
    return await servicer.Classify(asked, FakeContext())  # type: ignore[arg-type]


def logits(directory: Path, *texts: str) -> np.ndarray[Any, Any]:
    """A direct forward pass, by transformers alone."""
    path = directory / "classifier"
    tokeniser = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        found: Any = model(**tokeniser(*texts, return_tensors="pt", return_token_type_ids=True)).logits[0]
    return np.asarray(found)


async def test_batched_equals_a_direct_forward_pass(servicer: ClassificationServicer, directory: Path) -> None:
    texts = ("hello", "a longer text of words", "x")
    reply = await classify(servicer, request(*texts, score_function=pb.SCORE_FUNCTION_NONE))
    for result, text in zip(reply.results, texts, strict=True):
        raw = {each.label: each.score for each in result.labels}
        assert [raw[label] for label in ("red", "green", "blue")] == pytest.approx(logits(directory, text), abs=1e-5)
        scores = [each.score for each in result.labels]
        assert scores == sorted(scores, reverse=True)


async def test_a_pair_is_read_as_one(servicer: ClassificationServicer, directory: Path) -> None:
    asked = pb.ClassifyRequest(
        inputs=[item("one", "two"), item("three")],
        options=pb.ClassifyOptions(score_function=pb.SCORE_FUNCTION_NONE),
    )
    reply = await classify(servicer, asked)
    for result, texts in zip(reply.results, (("one", "two"), ("three",)), strict=True):
        raw = {each.label: each.score for each in result.labels}
        assert [raw[label] for label in ("red", "green", "blue")] == pytest.approx(logits(directory, *texts), abs=1e-5)


async def test_softmax_and_sigmoid(servicer: ClassificationServicer, directory: Path) -> None:
    raw = logits(directory, "x")
    softmax = await classify(servicer, request("x"))
    assert sum(each.score for each in softmax.results[0].labels) == pytest.approx(1)
    several = await classify(servicer, request("x", multi_label=True))
    assert several.results[0].labels[0].score == pytest.approx(1 / (1 + np.exp(-raw.max())), abs=1e-6)
    top = await classify(servicer, request("x", top_k=1))
    assert len(top.results[0].labels) == 1


async def test_zero_shot_finds_the_same_text(servicer: ClassificationServicer) -> None:
    reply = await classify(servicer, request("river bank", labels=("river bank", "qqqq")))
    assert (reply.model, reply.results[0].labels[0].label) == ("any", "river bank")
    again = await classify(servicer, request("river bank", labels=("river bank", "qqqq")))
    assert again == reply  # remembered labels cost and score the same


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (request(), "inputs"),
        (request(*["x"] * 9), "inputs"),
        (request("x", ""), "inputs[1].text"),
        (request("x", top_k=0), "options.top_k"),
        (request("x", top_k=4), "options.top_k"),
        (request("x", score_function=99), "options.score_function"),
        (request("x", priority=99), "options.priority"),
        (request("x", labels=("a",)), "candidate_labels.labels"),
        (request("x", labels=("a", "a")), "candidate_labels.labels"),
        (request("x", labels=("a", "")), "candidate_labels.labels[1].name"),
        (request("x", labels=("a", "b"), model="colour"), "candidate_labels"),
        (request("x", model="any"), "candidate_labels"),
        (request("x " * 100), "inputs[0]"),
    ],
)
async def test_what_is_out_of_range_is_named(
    servicer: ClassificationServicer, asked: pb.ClassifyRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await classify(servicer, asked)
    assert caught.value.violations[0].field == field


async def test_a_pair_is_refused_where_it_means_nothing(servicer: ClassificationServicer) -> None:
    asked = request("x", labels=("a", "b"))
    asked.inputs[0].text_pair = "y"
    with pytest.raises(InvalidArgument) as caught:
        await classify(servicer, asked)
    assert caught.value.violations[0].field == "inputs[0].text_pair"


async def test_a_long_text_is_cut_when_asked(servicer: ClassificationServicer) -> None:
    reply = await classify(servicer, request("x " * 100, truncate=True))
    assert (reply.results[0].tokens, reply.results[0].truncated) == (64, True)


async def test_unknown_models_are_not_found(servicer: ClassificationServicer) -> None:
    await classify(servicer, request("x", model="hue"))
    for name in ["other", "\x1b[2J\x1b[H", "a\nb", "\u202ebob", "é", "a" * 256]:
        with pytest.raises(NotFound) as caught:
            await classify(servicer, request("x", model=name))
        assert caught.value.message == f"no such model: {name!r}" and caught.value.message.isprintable()


async def test_a_stream_keeps_what_its_first_message_said(servicer: ClassificationServicer) -> None:
    async def requests(*messages: pb.ClassifyRequest) -> AsyncIterator[pb.ClassifyStreamRequest]:
        for message in messages:
            yield pb.ClassifyStreamRequest(request=message)

    async def run(*messages: pb.ClassifyRequest) -> list[pb.ClassifyStreamResponse]:
        replies = servicer.ClassifyStream(requests(*messages), FakeContext())  # type: ignore[arg-type]
        return [reply async for reply in replies]

    replies = await run(request("x", top_k=1), pb.ClassifyRequest(inputs=[item("y"), item("z")]))
    assert [len(reply.response.results) for reply in replies] == [1, 2]
    assert len(replies[1].response.results[0].labels) == 1
    with pytest.raises(InvalidArgument) as caught:
        await run(request("x"), request("x", top_k=1))
    assert caught.value.violations[0].field == "request.options"
