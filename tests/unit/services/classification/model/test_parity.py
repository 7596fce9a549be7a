"""Labels, scores and spans as transformers has them: classifiers of every sort of head, taggers of every sort of
tokeniser, and zero-shot by entailment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    pipeline,
)

from meshgate.errors import Internal, InvalidArgument
from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.runtime.config import ConfigError
from meshgate.v1 import classification_pb2 as pb
from services.classification.config import ClassificationConfig, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.model import entailment, scores
from tests.kinds import kinds, tokenisers
from tests.support.fixtures.classification_service import of, running
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier

_Fast: Any = PreTrainedTokenizerFast  # transformers leaves these untyped
_Qwen2Config: Any = Qwen2Config
_Qwen2: Any = Qwen2ForSequenceClassification
_BertConfig: Any = BertConfig
TEXTS = ("Hello", "Ann met Bob in the office, and both went to Paris.", "no", "one two three four")


def configured(folder: Path, **zero_shot: Any) -> ClassificationConfig:
    nowhere = tls.TlsConfig(certificate=folder, key=folder, ca=folder)
    return ClassificationConfig(
        server=ServerConfig(tls=nowhere),
        classifiers=(ClassifierConfig(source=str(folder), name="m"),),
        zero_shot=ZeroShotConfig(name="any", **zero_shot) if zero_shot else None,
        custom=None,
        engine=EngineConfig(dtype="float32", device="cpu"),
    )


async def classified(config: ClassificationConfig, *texts: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
    request = pb.ClassifyRequest(
        inputs=[pb.ClassificationInput(text=text) for text in texts], options=pb.ClassifyOptions(**options)
    )
    if labels:
        request.candidate_labels.labels.extend(pb.CandidateLabel(name=label) for label in labels)
    async with running(config) as servicer:
        return (await servicer.Classify(request, of())).results


def in_order(result: Any, *labels: str) -> list[float]:
    found = {each.label: each.score for each in result.labels}
    return [found[label] for label in labels]


@pytest.mark.parametrize("pads", [None, 1, 5])
@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_classifier_that_is_a_decoder_says_in_a_batch_what_it_says_alone(
    tmp_path: Path, pads: int | None, side: str
) -> None:
    tokeniser = tokenisers.trained("bytes")
    tokeniser.padding_side = side
    tokeniser.save_pretrained(tmp_path)
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = _Qwen2Config(vocab_size=400, intermediate_size=64, pad_token_id=pads, num_labels=3, **sizes)
    module: Any = _Qwen2(config).eval()
    module.save_pretrained(tmp_path)
    results = await classified(configured(tmp_path), *TEXTS, score_function=pb.SCORE_FUNCTION_NONE)
    tokeniser = tokenisers.read(tmp_path)
    for text, result in zip(TEXTS, results, strict=True):
        made = in_order(result, "LABEL_0", "LABEL_1", "LABEL_2")
        assert made == pytest.approx(kinds.expected(module, tokeniser, text).tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["bart", "t5", "xlnet", "fnet", "roberta", "canine"])
async def test_every_sort_of_head(tmp_path: Path, kind: str) -> None:
    module, tokeniser = kinds.saved(tmp_path, kind, 1, "classifier")
    results = await classified(configured(tmp_path), *TEXTS, score_function=pb.SCORE_FUNCTION_NONE)
    for text, result in zip(TEXTS, results, strict=True):
        made = in_order(result, "O", "B-PER", "I-PER")
        assert made == pytest.approx(kinds.expected(module, tokeniser, text).tolist(), abs=1e-4)


async def test_a_regression_is_not_put_through_a_function(tmp_path: Path) -> None:
    said = build_tiny_classifier(tmp_path) / "config.json"
    said.write_text(said.read_text().replace('"model_type"', '"problem_type": "regression", "model_type"', 1))
    raw = await classified(configured(tmp_path), "hello", score_function=pb.SCORE_FUNCTION_NONE)
    plain = await classified(configured(tmp_path), "hello")
    apart = await classified(configured(tmp_path), "hello", multi_label=True)
    wanted = in_order(raw[0], "red", "green", "blue")
    for made in (plain, apart):
        assert in_order(made[0], "red", "green", "blue") == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("function", [pb.SCORE_FUNCTION_SIGMOID, pb.SCORE_FUNCTION_SOFTMAX, pb.SCORE_FUNCTION_NONE])
@pytest.mark.parametrize("raw", [[18, 30, 25], [-200, -190, -195], [0, 40, 39.999], [90, 100, 95]])
def test_the_best_label_is_the_best_where_scores_are_as_large_as_can_be(
    raw: list[float], function: pb.ScoreFunction.ValueType
) -> None:
    row = np.array(raw, dtype=np.float32)
    ranked = scores.ranked(row, scores.scored(row, function), ("a", "b", "c"), 3)
    assert [each.label for each in ranked] == ["b", "c", "a"]
    assert all(np.isfinite(each.score) for each in ranked)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(Internal):
        scores.checked(np.array([[0.0, bad]], dtype=np.float32))


# Taggers. Each piece of these vocabularies has one label, so what is right can be read off the text.

PIECES = {
    "▁": "O",
    "今天我在": "O",
    "北京": "B-LOC",
    "见到": "O",
    "李华": "B-PER",
    "。": "O",
    "▁Ann": "B-PER",
    "▁Mary": "I-PER",
    "▁met": "O",
    "▁Bob": "B-PER",
    "▁in": "O",
    "▁Paris": "B-LOC",
    ",": "O",
    ".": "O",
    "กรุงเทพ": "B-LOC",
    "ไป": "O",
}


def tagger(folder: Path, *, prepend: str = "always") -> Path:
    """A model whose label of a token is that of its piece: its embeddings are the labels."""
    labels = ["O", "B-PER", "I-PER", "B-LOC"]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *PIECES, *(chr(number) for number in range(97, 123))]
    made = Tokenizer(models.Unigram([(piece, -float(len(piece) < 2) - 1) for piece in pieces], unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    _Fast(tokenizer_object=made, model_max_length=64, **names).save_pretrained(folder)
    config = _BertConfig(
        vocab_size=len(pieces), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=64, num_labels=4, id2label=dict(enumerate(labels)), pad_token_id=1,
    )  # fmt: skip
    module: Any = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for name, parameter in module.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter.fill_(1)
        words = module.bert.embeddings.word_embeddings.weight
        for number, piece in enumerate(pieces):
            words[number, labels.index(PIECES.get(piece, "O"))] = 9
        module.classifier.weight.copy_(torch.eye(8)[:4] * 5)
    module.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("prepend", ["always", "first", "never"])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("今天我在北京见到李华。", [("LOC", "北京"), ("PER", "李华")]),
        ("北京", [("LOC", "北京")]),
        ("李华 北京", [("PER", "李华"), ("LOC", "北京")]),
        (" Ann Mary met  Bob in Paris.", [("PER", "Ann Mary"), ("PER", "Bob"), ("LOC", "Paris")]),
        ("x Ann, Bob", [("PER", "Ann"), ("PER", "Bob")]),
        ("ไปกรุงเทพ", [("LOC", "กรุงเทพ")]),
    ],
)
async def test_spans_of_text_without_blanks_and_none_that_begins_with_one(
    tmp_path: Path, prepend: str, text: str, wanted: list[tuple[str, str]]
) -> None:
    config = configured(tagger(tmp_path, prepend=prepend))
    [result] = await classified(config, text)
    assert [(span.label, text[span.start : span.end]) for span in result.spans] == wanted
    for grouping in (pb.TOKEN_GROUPING_TOKENS, pb.TOKEN_GROUPING_WORDS):
        [result] = await classified(config, text, token_grouping=grouping)
        found = [text[span.start : span.end] for span in result.spans]
        assert all(piece and piece == piece.strip() for piece in found)
        assert "".join(found) == "".join(text.split())


# Zero-shot by entailment, against transformers' pipeline.

LABELS = ("politics", "sports </s></s> This example is sports.", "food")


@pytest.mark.parametrize("kind", ["bart", "roberta", "deberta-v2"])
@pytest.mark.parametrize("order", [("contradiction", "neutral", "entailment"), ("ENTAILMENT", "NOT_ENTAILMENT")])
@pytest.mark.parametrize("multi_label", [False, True])
async def test_zero_shot_by_entailment_is_that_of_the_pipeline(
    tmp_path: Path, kind: str, order: tuple[str, ...], multi_label: bool
) -> None:
    nli(tmp_path, kind, order)
    build_tiny_classifier(tmp_path / "other")
    config = configured(tmp_path / "other", source=str(tmp_path / "nli"))
    results = await classified(config, *TEXTS, labels=(LABELS[0], LABELS[2], "news"), multi_label=multi_label)
    asks: Any = pipeline("zero-shot-classification", str(tmp_path / "nli"), device="cpu")
    for text, result in zip(TEXTS, results, strict=True):
        wanted = asks(text, [LABELS[0], LABELS[2], "news"], multi_label=multi_label)
        assert [each.label for each in result.labels] == wanted["labels"]
        assert [each.score for each in result.labels] == pytest.approx(wanted["scores"], abs=1e-5)


def nli(folder: Path, kind: str, order: tuple[str, ...]) -> None:
    (folder / "nli").mkdir()
    (folder / "other").mkdir()
    module, _ = kinds.saved(folder / "nli", kind, 1, "classifier")
    names = {"id2label": dict(enumerate(order)), "label2id": {label: place for place, label in enumerate(order)}}
    config = type(module.config)(**{**module.config.to_dict(), "num_labels": len(order), **names})
    torch.manual_seed(9)
    made = type(module)(config)
    for parameter in made.parameters():
        parameter.data.mul_(4.0 if parameter.dim() > 1 else 1.0)  # so that no two scores are nearly the same
    made.save_pretrained(folder / "nli")


async def test_a_hypothesis_is_never_cut_and_its_markers_are_text(tmp_path: Path) -> None:
    nli(tmp_path, "bart", ("contradiction", "neutral", "entailment"))
    build_tiny_classifier(tmp_path / "other")
    config = configured(tmp_path / "other", source=str(tmp_path / "nli"), max_input_tokens=60)
    [result] = await classified(config, "many words " * 60, labels=LABELS, truncate=True)
    assert result.truncated
    assert sum(each.score for each in result.labels) == pytest.approx(1)
    with pytest.raises(InvalidArgument, match="inputs") as long:
        await classified(config, "many words " * 60, labels=LABELS)
    assert long.value.reason == "INPUT_TOO_LONG"
    with pytest.raises(InvalidArgument, match=r"candidate_labels.labels\[1\]"):
        await classified(config, "hi", labels=("a", "label " * 60))


async def test_a_classifier_without_entailment_is_refused_for_zero_shot(tmp_path: Path) -> None:
    build_tiny_classifier(tmp_path)
    with pytest.raises(ConfigError, match=r"^zero_shot\.source: .*entailment"):
        await classified(configured(tmp_path, source=str(tmp_path)), "x")


async def test_labels_apart_from_each_other_by_vectors_have_a_midpoint(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    build_tiny_bert(tmp_path / "bert")
    build_tiny_classifier(tmp_path)
    at = {"source": str(tmp_path / "bert"), "max_input_tokens": 64}
    [low] = await classified(configured(tmp_path, **at, midpoint=1.0), "x y", labels=("a", "b"), multi_label=True)
    [high] = await classified(configured(tmp_path, **at, midpoint=-1.0), "x y", labels=("a", "b"), multi_label=True)
    assert all(each.score <= 0.5 for each in low.labels)
    assert all(each.score >= 0.5 for each in high.labels)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (("contradiction", "neutral", "entailment"), (2, 0)),
        (("ENTAILMENT", "NEUTRAL", "CONTRADICTION"), (0, 2)),
        (("entailment", "not_entailment"), (0, 1)),
        (("contradiction", "entailment", "neutral"), (1, 0)),
        (("no", "entails"), (1, 0)),
        (("positive", "negative"), None),
        (("entailment",), None),
    ],
)
def test_which_labels_judge(labels: tuple[str, ...], wanted: tuple[int, int] | None) -> None:
    assert entailment.judges(labels) == wanted
