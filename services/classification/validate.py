"""Checks of every field of ClassificationService, and the plan that comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from meshgate.errors import InvalidArgument, NotFound
from meshgate.v1 import classification_pb2 as pb
from services.classification.custom.heads import Head
from services.classification.model_proxy import ClassifierProxy, ModelProxy, ZeroShotProxy
from services.common import checks
from services.text.tokens import Cut

_MOST_LABELS: Final = 256
_DESCRIPTION_BYTES: Final = 4096


@dataclass(frozen=True)
class Models:
    """What the service has. `classifiers` maps names and aliases to a model's own name and the model."""

    classifiers: dict[str, tuple[str, ClassifierProxy]]
    default: str
    zero_shot: tuple[str, ZeroShotProxy] | None
    zero_shot_names: frozenset[str]
    max_batch: int
    most_tokens: int = 262_144
    """The most tokens that the inputs of a call may become, where each is read once for each label."""

    def has(self, name: str) -> bool:
        """Whether it is a name of the service's own; none is, which stands for a default."""
        return not name or name in self.classifiers or name in self.zero_shot_names

    @property
    def names(self) -> frozenset[str]:
        """All the names of the service's own."""
        return self.zero_shot_names | self.classifiers.keys()


class _Chosen(NamedTuple):
    """Which model a request is for."""

    name: str
    model: ModelProxy
    head: Head | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request."""

    name: str
    model: ModelProxy
    head: Head | None
    """Of a classifier of the tenant's own; `model` is then its encoder."""
    texts: list[str]
    """With the model's prompt before each."""
    pairs: list[str]
    """Empty where no input has a second text."""
    labels: tuple[str, ...]
    descriptions: list[str]
    """For zero-shot, one a label."""
    function: pb.ScoreFunction.ValueType
    apart: bool
    """Whether labels are judged apart from each other."""
    top_k: int
    grouping: pb.TokenGrouping.ValueType
    cut: Cut
    yields: bool


def plan(request: pb.ClassifyRequest, models: Models, own: Head | None = None, *, bulk: bool = False) -> Plan:
    """`own` is the tenant's classifier of that name. Raises InvalidArgument, naming the field, or NotFound
    (MODEL_NOT_FOUND).
    """
    checks.size("model", request.model, 0, checks.NAME_BYTES)
    chosen = _model(request, models, own)
    _check_inputs(request, models.max_batch, chosen.model)
    labels, descriptions = _labels(request, chosen)
    options = request.options
    _check_tagging(options, chosen.model)
    function = _function(options, chosen.model)
    return Plan(
        name=chosen.name,
        model=chosen.model,
        head=chosen.head,
        texts=[chosen.model.prompt + item.text for item in request.inputs],
        pairs=_pairs(request),
        labels=labels,
        descriptions=descriptions,
        function=function,
        apart=function == pb.SCORE_FUNCTION_SIGMOID or options.multi_label,
        top_k=_top_k(options, len(labels)),
        grouping=options.token_grouping,
        cut=Cut.END if options.truncate else Cut.REFUSE,
        yields=checks.is_batch(options.priority, bulk=bulk),
    )


def _model(request: pb.ClassifyRequest, models: Models, own: Head | None) -> _Chosen:
    zero_shot = request.HasField("candidate_labels")
    wants_zero_shot = request.model in models.zero_shot_names or (zero_shot and not request.model)
    if wants_zero_shot:
        if models.zero_shot is None:
            raise NotFound("no model for zero-shot is served here", reason="MODEL_NOT_FOUND")
        if not zero_shot:
            raise InvalidArgument.of("candidate_labels", "required for a zero-shot model")
        return _Chosen(*models.zero_shot)
    if zero_shot and (own or models.has(request.model)):
        raise InvalidArgument.of("candidate_labels", "refused for a named classifier, which has labels of its own")
    if own is not None and models.zero_shot is not None:
        return _Chosen(request.model, models.zero_shot[1], own)
    found = models.classifiers.get(request.model or models.default)
    if found is None:
        raise checks.no_model(request.model)
    return _Chosen(*found)


def _check_inputs(request: pb.ClassifyRequest, most: int, model: ModelProxy) -> None:
    checks.in_range("inputs", len(request.inputs), 1, most, "inputs")
    pairs = isinstance(model, ClassifierProxy) and model.card.pairs and not model.card.tags
    for index, item in enumerate(request.inputs):
        checks.size(f"inputs[{index}].text", item.text, 1, checks.TEXT_BYTES)
        checks.size(f"inputs[{index}].text_pair", item.text_pair, 0, checks.TEXT_BYTES)
        if item.text_pair and not pairs:
            raise InvalidArgument.of(f"inputs[{index}].text_pair", "this model takes one text")


def _pairs(request: pb.ClassifyRequest) -> list[str]:
    return [item.text_pair for item in request.inputs] if any(item.text_pair for item in request.inputs) else []


def _check_tagging(options: pb.ClassifyOptions, model: ModelProxy) -> None:
    checks.known("options.token_grouping", options.token_grouping, pb.TokenGrouping)
    if not model.facts.card.tags:
        if options.token_grouping:
            raise InvalidArgument.of("options.token_grouping", "this model classifies whole texts")
        return
    for name in ("multi_label", "top_k"):
        if options.HasField(name):
            raise InvalidArgument.of(f"options.{name}", "this model gives each token one label")


def _labels(request: pb.ClassifyRequest, chosen: _Chosen) -> tuple[tuple[str, ...], list[str]]:
    if chosen.head is not None:
        return chosen.head.labels, []
    if isinstance(chosen.model, ClassifierProxy):
        return chosen.model.card.labels, []
    asked = request.candidate_labels.labels
    checks.in_range("candidate_labels.labels", len(asked), 2, _MOST_LABELS, "labels")
    for index, label in enumerate(asked):
        field = f"candidate_labels.labels[{index}]"
        checks.size(f"{field}.name", label.name, 1, checks.NAME_BYTES)
        checks.size(f"{field}.description", label.description, 0, _DESCRIPTION_BYTES)
    names = tuple(label.name for label in asked)
    if len(set(names)) != len(names):
        raise InvalidArgument.of("candidate_labels.labels", "names must differ from each other")
    zero_shot = chosen.model
    if not isinstance(zero_shot, ZeroShotProxy):
        return names, []
    return names, [zero_shot.statement(label.name, label.description) for label in asked]


def _function(options: pb.ClassifyOptions, model: ModelProxy) -> pb.ScoreFunction.ValueType:
    checks.known("options.score_function", options.score_function, pb.ScoreFunction)
    if options.score_function == pb.SCORE_FUNCTION_UNSPECIFIED:
        if isinstance(model, ClassifierProxy) and model.card.raw:
            return pb.SCORE_FUNCTION_NONE
        several = isinstance(model, ClassifierProxy) and model.card.several
        independent = options.multi_label if options.HasField("multi_label") else several
        return pb.SCORE_FUNCTION_SIGMOID if independent else pb.SCORE_FUNCTION_SOFTMAX
    return options.score_function


def _top_k(options: pb.ClassifyOptions, labels: int) -> int:
    if not options.HasField("top_k"):
        return labels
    checks.in_range("options.top_k", options.top_k, 1, labels, "labels")
    return options.top_k
