"""Checkpoints of other kinds than one text, one label: pairs, relevance, tokens. Each against transformers itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from meshgate.errors import InvalidArgument
from meshgate.v1 import classification_pb2 as pb
from services.classification.servicer import ClassificationServicer
from tests.support.fixtures.classification_service import build, configured, of, running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models"))


@pytest.fixture
async def servicer(models: Path, tmp_path: Path) -> AsyncIterator[ClassificationServicer]:
    async with running(configured(models, tmp_path)) as servicer:
        yield servicer


def asked(model: str, *texts: str, pair: str = "", **options: Any) -> pb.ClassifyRequest:
    inputs = [pb.ClassificationInput(text=text, text_pair=pair) for text in texts]
    return pb.ClassifyRequest(model=model, inputs=inputs, options=pb.ClassifyOptions(**options))


@pytest.mark.parametrize(("model", "folder"), [("colour", "classifier"), ("reranker", "reranker")])
async def test_a_pair_is_what_transformers_makes_of_it(
    servicer: ClassificationServicer, models: Path, model: str, folder: str
) -> None:
    tokeniser = AutoTokenizer.from_pretrained(models / folder)
    module: Any = AutoModelForSequenceClassification.from_pretrained(models / folder).eval()
    typed = {"return_token_type_ids": model == "colour"}
    with torch.inference_mode():
        expected = module(**tokeniser("a question", "an answer", return_tensors="pt", **typed)).logits[0].numpy()
    request = asked(model, "a question", pair="an answer", score_function=pb.SCORE_FUNCTION_NONE)
    reply = await servicer.Classify(request, of())
    raw = sorted((each.score for each in reply.results[0].labels), reverse=True)
    assert raw == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    swapped = asked(model, "an answer", pair="a question", score_function=pb.SCORE_FUNCTION_NONE)
    other = await servicer.Classify(swapped, of())
    assert other.results[0].labels != reply.results[0].labels


async def test_one_label_alone_is_a_sigmoid(servicer: ClassificationServicer) -> None:
    raw = await servicer.Classify(asked("reranker", "q", pair="a", score_function=pb.SCORE_FUNCTION_NONE), of())
    reply = await servicer.Classify(asked("reranker", "q", pair="a"), of())
    score, logit = reply.results[0].labels[0].score, raw.results[0].labels[0].score
    assert score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)
    assert score not in (0.0, 1.0)


async def test_positions_that_roberta_does_not_have_are_not_used(servicer: ClassificationServicer) -> None:
    reply = await servicer.Classify(asked("reranker", "x " * 500, truncate=True), of())
    assert (reply.results[0].tokens, reply.results[0].truncated) == (62, True)


TEXT = "Zoë Müller 去 Paris, naïvely; then Bob😀 slept in Rome"


@pytest.mark.parametrize(
    ("grouping", "strategy"),
    [(pb.TOKEN_GROUPING_TOKENS, "none"), (pb.TOKEN_GROUPING_WORDS, "words"), (pb.TOKEN_GROUPING_UNSPECIFIED, "first")],
)
async def test_tokens_words_and_spans_are_those_of_transformers(
    servicer: ClassificationServicer, models: Path, grouping: pb.TokenGrouping.ValueType, strategy: str
) -> None:
    reply = await servicer.Classify(asked("tagger", TEXT, token_grouping=grouping), of())
    found = [(each.label, each.start, each.end) for each in reply.results[0].spans]
    if strategy == "words":
        assert [TEXT[start:end] for _, start, end in found] == [
            "Zoë", "Müller", "去", "Paris", ",", "naïvely", ";", "then", "Bob😀", "slept", "in", "Rome",
        ]  # fmt: skip
        return
    tagging: Any = pipeline(
        "token-classification", str(models / "tagger"), aggregation_strategy=strategy, ignore_labels=[], device="cpu"
    )
    expected = [(each.get("entity_group") or each["entity"], each["start"], each["end"]) for each in tagging(TEXT)]
    if strategy == "first":
        expected = [each for each in expected if each[0] != "O"]
        assert len({label for label, _, _ in found}) > 1
    assert found == expected
    assert all(0 < each.score <= 1 for each in reply.results[0].spans)
    assert not reply.results[0].labels


async def test_a_stream_of_texts_is_tagged_too(servicer: ClassificationServicer) -> None:
    async def requests() -> AsyncIterator[pb.ClassifyStreamRequest]:
        for text in ("Bob slept", "in Rome"):
            yield pb.ClassifyStreamRequest(request=asked("tagger", text, token_grouping=pb.TOKEN_GROUPING_WORDS))

    replies = [reply async for reply in servicer.ClassifyStream(requests(), of())]
    assert [len(reply.response.results[0].spans) for reply in replies] == [2, 2]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked("tagger", "x", top_k=1), "options.top_k"),
        (asked("tagger", "x", multi_label=True), "options.multi_label"),
        (asked("tagger", "x", pair="y"), "inputs[0].text_pair"),
        (asked("tagger", "x", token_grouping=99), "options.token_grouping"),
        (asked("colour", "x", token_grouping=pb.TOKEN_GROUPING_WORDS), "options.token_grouping"),
    ],
)
async def test_what_means_nothing_is_refused(
    servicer: ClassificationServicer, request_: pb.ClassifyRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await servicer.Classify(request_, of())
    assert caught.value.violations[0].field == field
