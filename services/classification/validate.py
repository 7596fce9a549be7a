"""Checks of every field of ClassificationService, and the plan that comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshgate.errors import InvalidArgument
from meshgate.v1 import classification_pb2 as pb
from services import checks
from services.classification.model import Classifier, ZeroShot
from services.tokens import Cut

_MOST_LABELS: Final = 256
_DESCRIPTION_BYTES: Final = 4096


@dataclass(frozen=True)
class Models:
    """What the service has. `classifiers` maps names and aliases to a model's own name and the model."""

    classifiers: dict[str, tuple[str, Classifier]]
    default: str
    zero_shot: tuple[str, ZeroShot] | None
    zero_shot_names: frozenset[str]
    max_batch: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request."""

    name: str
    model: Classifier | ZeroShot
    texts: list[str]
    pairs: list[str]
    """Empty where no input has a second text."""
    labels: tuple[str, ...]
    descriptions: list[str]
    """For zero-shot, one a label."""
    function: pb.ScoreFunction.ValueType
    top_k: int
    cut: Cut
    yields: bool


def plan(request: pb.ClassifyRequest, models: Models, *, bulk: bool = False) -> Plan:
    """Raises InvalidArgument, naming the field, or NotFound (MODEL_NOT_FOUND)."""
    checks.size("model", request.model, 0, checks.NAME_BYTES)
    name, model = _model(request, models)
    _check_inputs(request, models.max_batch, model)
    labels, descriptions = _labels(request, model)
    options = request.options
    return Plan(
        name=name,
        model=model,
        texts=[item.text for item in request.inputs],
        pairs=_pairs(request),
        labels=labels,
        descriptions=descriptions,
        function=_function(options),
        top_k=_top_k(options, len(labels)),
        cut=Cut.END if options.truncate else Cut.REFUSE,
        yields=checks.yields(options.priority, bulk=bulk),
    )


def _model(request: pb.ClassifyRequest, models: Models) -> tuple[str, Classifier | ZeroShot]:
    zero_shot = request.HasField("candidate_labels")
    wants_zero_shot = request.model in models.zero_shot_names or (zero_shot and not request.model)
    if wants_zero_shot:
        if models.zero_shot is None:
            raise checks.no_model()
        if not zero_shot:
            raise InvalidArgument.of("candidate_labels", "required for a zero-shot model")
        return models.zero_shot
    found = models.classifiers.get(request.model or models.default)
    if found is None:
        raise checks.no_model()
    if zero_shot:
        raise InvalidArgument.of("candidate_labels", "refused for a named classifier, which has labels of its own")
    return found


def _check_inputs(request: pb.ClassifyRequest, most: int, model: Classifier | ZeroShot) -> None:
    checks.in_range("inputs", len(request.inputs), 1, most, "inputs")
    pairs = isinstance(model, Classifier) and model.pairs
    for index, item in enumerate(request.inputs):
        checks.size(f"inputs[{index}].text", item.text, 1, checks.TEXT_BYTES)
        checks.size(f"inputs[{index}].text_pair", item.text_pair, 0, checks.TEXT_BYTES)
        if item.text_pair and not pairs:
            raise InvalidArgument.of(f"inputs[{index}].text_pair", "this model takes one text")


def _pairs(request: pb.ClassifyRequest) -> list[str]:
    return [item.text_pair for item in request.inputs] if any(item.text_pair for item in request.inputs) else []


def _labels(request: pb.ClassifyRequest, model: Classifier | ZeroShot) -> tuple[tuple[str, ...], list[str]]:
    if isinstance(model, Classifier):
        return model.labels, []
    asked = request.candidate_labels.labels
    checks.in_range("candidate_labels.labels", len(asked), 2, _MOST_LABELS, "labels")
    for index, label in enumerate(asked):
        field = f"candidate_labels.labels[{index}]"
        checks.size(f"{field}.name", label.name, 1, checks.NAME_BYTES)
        checks.size(f"{field}.description", label.description, 0, _DESCRIPTION_BYTES)
    names = tuple(label.name for label in asked)
    if len(set(names)) != len(names):
        raise InvalidArgument.of("candidate_labels.labels", "names must differ from each other")
    return names, [label.description or label.name for label in asked]


def _function(options: pb.ClassifyOptions) -> pb.ScoreFunction.ValueType:
    checks.known("options.score_function", options.score_function, pb.ScoreFunction.values())
    if options.score_function == pb.SCORE_FUNCTION_UNSPECIFIED:
        return pb.SCORE_FUNCTION_SIGMOID if options.multi_label else pb.SCORE_FUNCTION_SOFTMAX
    return options.score_function


def _top_k(options: pb.ClassifyOptions, labels: int) -> int:
    if not options.HasField("top_k"):
        return labels
    checks.in_range("options.top_k", options.top_k, 1, labels, "labels")
    return options.top_k
