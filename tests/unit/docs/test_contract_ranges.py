"""Every range that the contract's comments promise, read out of them, holds in the code that checks requests: below it,
at its ends, above it, and for what is no number; and the error names the field.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from meshgate.errors import InvalidArgument, NotFound
from meshgate.sealing import codec
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, sealed_pb2
from services.classification import validate as classifying
from services.classification.config import CustomConfig
from services.classification.custom.examples import Examples
from services.classification.model_proxy import Card, ClassifierProxy, ZeroShotProxy
from services.common import checks
from services.embedding import validate as embedding
from services.encoders.pooling import Pooling
from services.generation import constraints
from services.generation.serving import preparation, validate
from services.generation.serving.limits import Limits

PROTOS: Final = Path(__file__).parents[3] / "protos"
NUMBER: Final = r"(?:2\^\d+(?: - 1)?|[\d,]+(?:\.\d+)?(?:e-?\d+)?)"
SYMBOLS: Final = {
    "the model's max_output_tokens": 64,
    "the vocabulary size": 128,
    "the model's dimensions": 32,
    "the number of labels": 3,
    "the model's max_batch": 8,
    "vocabulary size - 1": 127,
}
END: Final = rf"{NUMBER}|{'|'.join(map(re.escape, SYMBOLS))}"
VALUE: Final = re.compile(rf"Range (above )?({NUMBER}) to ({END})")
EACH: Final = re.compile(rf"each of ({NUMBER}) to ({NUMBER}) bytes")
BYTES: Final = re.compile(rf"(?:({NUMBER}) to|[Aa]t most) ({NUMBER}) bytes")
COUNT: Final = re.compile(rf"^(?:({NUMBER}) to|At most) ({END})(?: options| labels| turns| inputs| texts|,)")
PROMISES: Final = re.compile(r"\bRange\b|[Aa]t most [\d,]+|\b\d[\d,]* to [\dtv]|Required\.")


class Range(NamedTuple):
    """What a comment promises of a field."""

    message: str
    field: str
    kind: str
    """`value`, `bytes`, `count` or `each`: bytes of an element."""
    low: float
    high: float
    above: bool = False
    """Whether the low end itself is refused."""


def descriptions() -> descriptor_pb2.FileDescriptorSet:
    sources = sorted(str(path) for path in PROTOS.glob("meshgate/v1/*.proto"))
    protoc = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        str(PROTOS),
        "--include_source_info",
        "-o",
        "/dev/stdout",
    ]
    made = subprocess.run([*protoc, *sources], check=True, capture_output=True)
    return descriptor_pb2.FileDescriptorSet.FromString(made.stdout)


def comments() -> Iterator[tuple[str, str, str]]:
    """Message, field, and what stands above the field."""
    for file in descriptions().file:
        said = {tuple(each.path): " ".join(each.leading_comments.split()) for each in file.source_code_info.location}
        for at, message in enumerate(file.message_type):
            for index, field in enumerate(message.field):
                yield message.name, field.name, said.get((4, at, 2, index), "")


def number(text: str) -> float:
    if (meant := SYMBOLS.get(text)) is not None:
        return meant
    if text.startswith("2^"):
        power, _, less = text.removeprefix("2^").partition(" - ")
        return (1 << int(power)) - int(less or 0)
    return float(text.replace(",", "")) if set(text) & set(".e") else int(text.replace(",", ""))


def ranges() -> Iterator[Range]:
    for message, field, said in comments():
        if message not in SPOTS:
            continue
        if found := VALUE.search(said):
            yield Range(message, field, "value", number(found[2]), number(found[3]), bool(found[1]))
        if found := EACH.search(said):
            yield Range(message, field, "each", number(found[1]), number(found[2]))
        elif found := BYTES.search(said):
            yield Range(message, field, "bytes", number(found[1] or "0"), number(found[2]))
        if found := COUNT.search(said):
            yield Range(message, field, "count", number(found[1] or "0"), number(found[2]))


LIMITS: Final = Limits("m", (), 10_000_000, 64, 16, 128)
FACTS: Final = SimpleNamespace(card=Card(labels=("a", "b", "c"), pairs=True))
CLASSIFIER: Final = object.__new__(ClassifierProxy)
ZERO_SHOT: Final = object.__new__(ZeroShotProxy)
for _model in (CLASSIFIER, ZERO_SHOT):
    vars(_model).update(facts=FACTS, hosted=SimpleNamespace(facts=FACTS), _facts=FACTS)
MODELS: Final = classifying.Models({"c": ("c", CLASSIFIER)}, "c", ("z", ZERO_SHOT), frozenset(("z",)), 8)


def generated(request: generation_pb2.GenerateRequest) -> None:
    preparation._options(request, LIMITS)
    constraints.read(request.constraint)


def counted(request: generation_pb2.CountTokensRequest) -> None:
    validate.check_model(request.model, LIMITS)
    validate.check_input(request, LIMITS)


def embedded(request: embedding_pb2.EmbedRequest) -> None:
    checks.size("model", request.model, 0, checks.NAME_BYTES)  # as services.models.model_table finds it
    embedding.plan(request, embedding.Bounds(8, 32, Pooling.MEAN, {"x" * 64: ""}))


def classified(request: classification_pb2.ClassifyRequest) -> None:
    classifying.plan(request, MODELS)


def trained(request: classification_pb2.TrainClassifierRequest) -> None:
    Examples(CustomConfig(directory=PROTOS), ()).add(request)


Spot = tuple[Any, Callable[[Any], Any], Callable[[Any], None], str]
"""A good request, where in it the message is, what checks it, and the path of the message in errors."""


def spot(root: Any, find: Callable[[Any], Any], check: Callable[[Any], None], prefix: str) -> Spot:
    return root, find, check, prefix


generate: Final = generation_pb2.GenerateRequest(prompt="a")
talk: Final = generation_pb2.GenerateRequest(
    conversation=generation_pb2.Conversation(
        messages=[generation_pb2.Message(role=generation_pb2.ROLE_USER, content="a")]
    )
)
tokens: Final = generation_pb2.GenerateRequest(token_ids=generation_pb2.TokenIds(ids=[1]))
embed: Final = embedding_pb2.EmbedRequest(inputs=["a"])
classify: Final = classification_pb2.ClassifyRequest(inputs=[classification_pb2.ClassificationInput(text="a")])
label: Final = [classification_pb2.CandidateLabel(name=name) for name in "ab"]
zero: Final = classification_pb2.ClassifyRequest(
    inputs=classify.inputs, candidate_labels=classification_pb2.CandidateLabels(labels=label)
)
train: Final = classification_pb2.TrainClassifierRequest(
    model="m", inputs=[classification_pb2.LabelledInput(text="a", label="b")]
)
header: Final = sealed_pb2.EnvelopeHeader(
    version=1, method="/a/B", key_id="k", recipient=sealed_pb2.SEALING_RECIPIENT_SERVICE, token_cap=1
)

SPOTS: Final[dict[str, Spot]] = {
    "GenerateRequest": spot(generate, lambda root: root, generated, ""),
    "Sampling": spot(generate, lambda root: root.sampling, generated, "sampling."),
    "Constraint": spot(generate, lambda root: root.constraint, generated, "constraint."),
    "Choice": spot(generate, lambda root: root.constraint.choice, generated, "constraint.choice."),
    "Conversation": spot(talk, lambda root: root.conversation, generated, "conversation."),
    "Message": spot(talk, lambda root: root.conversation.messages[0], generated, "conversation.messages[0]."),
    "CountTokensRequest": spot(generation_pb2.CountTokensRequest(prompt="a"), lambda root: root, counted, ""),
    "EmbedRequest": spot(embed, lambda root: root, embedded, ""),
    "EmbedOptions": spot(embed, lambda root: root.options, embedded, "options."),
    "ClassifyRequest": spot(classify, lambda root: root, classified, ""),
    "ClassificationInput": spot(classify, lambda root: root.inputs[0], classified, "inputs[0]."),
    "ClassifyOptions": spot(classify, lambda root: root.options, classified, "options."),
    "CandidateLabels": spot(zero, lambda root: root.candidate_labels, classified, "candidate_labels."),
    "CandidateLabel": spot(
        zero, lambda root: root.candidate_labels.labels[0], classified, "candidate_labels.labels[0]."
    ),
    "LabelledInput": spot(train, lambda root: root.inputs[0], trained, "inputs[0]."),
    "TrainOptions": spot(train, lambda root: root.options, trained, "options."),
    "TrainClassifierRequest": spot(train, lambda root: root, trained, ""),
    "EnvelopeHeader": spot(header, lambda root: root, codec.check_fields, "envelope.header."),
}

ELSEWHERE: Final = {
    ("Message", "role"): "test_what_is_required",
    ("TokenIds", "ids"): "test_ids_of_tokens",
    ("TrainClassifierRequest", "model"): "test_names_of_classifiers",
    ("EnvelopeHeader", "request_id"): "tests/attack/envelopes/test_moves.py",
    ("CandidateLabels", "labels"): "",
    ("Model", "quality"): "an answer",
    ("Model", "adapters"): "an answer",
    ("LabelReport", "held_out"): "an answer",
    ("TrainingReport", "accuracy"): "an answer",
    ("TrainingReport", "version"): "an answer",
    ("ClassifierVersion", "accuracy"): "an answer",
    ("TokenLogprob", "logprob"): "an answer",
    ("SealingKey", "public_key"): "an answer",
    ("Segment", "ciphertext"): "tests/unit/meshgate/sealing/test_envelope.py",
    ("GenerateStreamResponse", "deltas"): "an answer",
}


def test_every_promise_is_read() -> None:
    read = {(each.message, each.field) for each in ranges()}
    promised = {(message, field) for message, field, said in comments() if PROMISES.search(said)}
    assert promised - read - ELSEWHERE.keys() == set()
    assert len(read) > 25


class Case(NamedTuple):
    """One value of a field, and whether it is in its range."""

    range: Range
    value: Any
    good: bool


def cases() -> Iterator[Case]:
    for each in ranges():
        yield from (Case(each, value, good) for value, good in _values(each))


def _values(each: Range) -> Iterator[tuple[Any, bool]]:
    low, high = each.low, each.high
    if each.kind != "value":
        yield from ((size, low <= size <= high) for size in {0, int(low), int(high), int(high) + 1})
        return
    field = type(SPOTS[each.message][1](_copy(each.message))).DESCRIPTOR.fields_by_name[each.field]
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        step = max(low * 0.1, 1e-9) if low < 1e-3 else 0.001
        yield from ((value, False) for value in (math.nan, math.inf, -math.inf, -1.0, low - step, high + 0.001))
        yield from ((low, not each.above), (low + step if each.above else low, True), (high, True))
        return
    most = 2**64 - 1 if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64 else 2**32 - 1
    yield from ((int(value), low <= value <= high) for value in {0, low, high, high + 1, most} if value <= most)


def _copy(message: str) -> Any:
    root = SPOTS[message][0]
    made = type(root)()
    made.CopyFrom(root)
    return made


def _name(case: Case) -> str:
    each = case.range
    return f"{each.message}.{each.field}-{each.kind}-{case.value}"


def _set(target: Any, case: Case) -> None:
    each, value = case.range, case.value
    match each.kind:
        case "value":
            setattr(target, each.field, value)
        case "bytes":
            schema = each.field == "json_schema" and value > 1
            setattr(target, each.field, f"{{{' ' * (value - 2)}}}" if schema else "x" * value)
        case "each":
            del getattr(target, each.field)[:]
            getattr(target, each.field).append("x" * value)
        case "count":
            _fill(getattr(target, each.field), value)


def _fill(held: Any, count: int) -> None:
    """So many elements, each unlike the others where that matters."""
    first = held[0] if len(held) else None
    del held[:]
    for index in range(count):
        if first is None or isinstance(first, str):
            held.append(f"x{index}")
        else:
            held.add().CopyFrom(first)
            if hasattr(first, "name"):
                held[-1].name = f"x{index}"


@pytest.mark.parametrize("case", cases(), ids=_name)
def test_a_field_and_its_range(case: Case) -> None:
    root = _copy(case.range.message)
    _, find, check, prefix = SPOTS[case.range.message]
    _set(find(root), case)
    path = f"{prefix}{case.range.field}" + ("[0]" if case.range.kind == "each" else "")
    try:
        check(root)
    except InvalidArgument as error:
        fields = [each.field for each in error.violations]
        assert not case.good or path not in fields, fields
        assert case.good or path in fields or path.removesuffix("[0]") in fields, fields
    except NotFound:
        assert case.good  # a name of the right length that nothing has
    else:
        assert case.good


@pytest.mark.parametrize("message", SPOTS)
def test_a_request_that_leaves_all_to_its_defaults_is_good(message: str) -> None:
    SPOTS[message][2](_copy(message))


@pytest.mark.parametrize(
    ("ids", "field"), [([], "token_ids.ids"), ([128], "token_ids.ids"), ([2**32 - 1], "token_ids.ids"), ([0, 127], "")]
)
def test_ids_of_tokens(ids: list[int], field: str) -> None:
    request = generation_pb2.GenerateRequest(token_ids=generation_pb2.TokenIds(ids=ids))
    refused(generated, request, field)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *((name, True) for name in ("a", "0", "a" * 63, "a.b_c-d")),
        *((name, False) for name in ("", "a" * 64, "A", ".a", "é")),
    ],
)
def test_names_of_classifiers(name: str, good: bool) -> None:
    request = _copy("TrainClassifierRequest")
    request.model = name
    refused(trained, request, "" if good else "model")


@pytest.mark.parametrize("role", [0, 4, -1])
def test_what_is_required(role: int) -> None:
    request = _copy("Message")
    request.conversation.messages[0].role = role
    refused(generated, request, "conversation.messages[0].role")
    refused(generated, generation_pb2.GenerateRequest(), "input")


ENUMS: Final = [
    ("EmbedOptions", "pooling"),
    ("EmbedOptions", "truncation"),
    ("EmbedOptions", "encoding"),
    ("EmbedOptions", "priority"),
    ("ClassifyOptions", "score_function"),
    ("ClassifyOptions", "priority"),
    ("ClassifyOptions", "token_grouping"),
    ("GenerateRequest", "priority"),
    ("EnvelopeHeader", "recipient"),
]


@pytest.mark.parametrize("value", [-1, 77, 2**31 - 1])
@pytest.mark.parametrize(("message", "field"), ENUMS)
def test_values_that_an_enum_does_not_have(message: str, field: str, value: int) -> None:
    root = _copy(message)
    _, find, check, prefix = SPOTS[message]
    setattr(find(root), field, value)
    refused(check, root, f"{prefix}{field}")


def test_no_enum_of_a_request_is_left_out() -> None:
    found = {
        (name, field.name)
        for name, (_, find, _, _) in SPOTS.items()
        for field in type(find(_copy(name))).DESCRIPTOR.fields
        if field.enum_type is not None
    }
    assert found - {("Message", "role")} == set(ENUMS)


def refused(check: Callable[[Any], None], request: Any, field: str) -> None:
    """Whether exactly `field` is refused; nothing is where it is empty."""
    try:
        check(request)
    except InvalidArgument as error:
        assert [each.field for each in error.violations] == [field]
    else:
        assert not field
