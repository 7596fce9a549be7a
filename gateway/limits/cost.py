"""How many tokens a call may take, from what the gateway can know: it has no tokeniser.

The bound of an input is its UTF-8 bytes, and a few more for what templates and tokenisers add by themselves. That is a
true bound for byte-level BPE, SentencePiece with byte fallback and WordPiece: none of their tokens is less than a byte
of the text. The requests as they came over the wire are no shorter than their texts, so their length is used. Where a
tokeniser's normalisation makes more of a text than it was, the bound may be too small; that harms its sender alone, for
the services refuse an input that is more than was reserved. So no call takes more than its reservation by construction,
whatever the bound; the bound only has to be such that honest calls fit. Bulk streams alone carry no cap: what they take
beyond the bound is charged when they end.

What a service declares (ListModels) bounds it further: `max_input_tokens`, which for generation is input and output of
a candidate together; and where the input is read apart from the output, `max_source_tokens`, which is the input's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from gateway import request_info
from gateway.limits.plan import UNLIMITED
from gateway.request_info import RequestInfo
from gateway.routes import LOCAL_ROUTES, MODEL_ROUTES, Route
from meshgate.services import SERVICES, CostRule
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, models_pb2

_SPECIAL: Final = 4
"""What tokenisers put around a text or a pair of them (RoBERTa's pair has the most)."""
_TURN: Final = 16
"""What chat templates put around a turn: role names and marks."""
_DEFAULT_OUTPUT: Final = 256
"""GenerateRequest.max_output_tokens, where it is left out."""
_WIRE: Final = 2
"""Tokens a byte of an encoder's sealed request, at most: the shortest text takes 3 bytes and 1 + _SPECIAL tokens."""
_LEAST_TEXT: Final = 3
"""The fewest bytes of a text on the wire."""
_KNOWN_NS: Final = 1_000_000_000
"""How long what services declared is believed before it is looked up again."""


_OWN: Final = {
    "/meshgate.v1.ModelService/ListModels": CostRule.REQUEST,
    "/meshgate.v1.KeyService/ListSealingKeys": CostRule.REQUEST,
}
"""The methods that the gateway answers by itself."""
RULES: Final[Mapping[str, CostRule]] = {
    f"/{service.full_name}/{name}": method.cost
    for service in SERVICES.values()
    for name, method in service.methods.items()
} | _OWN
"""The rule of every method that does work. A sealed call is charged by the method inside."""


class Cost(NamedTuple):
    """Tokens to reserve: as many as there are from `least`, with which the call is worth making, to `cost`."""

    least: int
    cost: int


FREE: Final = Cost(0, 0)


class ModelLimits(NamedTuple):
    """A model's limits; UNLIMITED where they are not known."""

    tokens: int = UNLIMITED
    output: int = UNLIMITED
    batch: int = UNLIMITED
    source: int = UNLIMITED
    prompt: int = 0
    """What the model's own prompt adds to each input that names none."""


class CostEstimator:
    """Reads what calls ask for."""

    def __init__(
        self,
        models: Callable[[], Iterable[models_pb2.Model]],
        clock: Callable[[], int],
        *,
        template_tokens: int,
        useful_output_tokens: int,
    ) -> None:
        """`models` lists what services declare; `clock` is in nanoseconds.

        Raises RuntimeError where a method of the contract has no rule.
        """
        _check_rules({**MODEL_ROUTES, **LOCAL_ROUTES})
        self._models = models
        self._clock = clock
        self._template = template_tokens
        self._useful = useful_output_tokens
        self._declared: dict[str, ModelLimits] = {}
        self._trained = _UNKNOWN
        """What is declared of the encoder that training reads texts with. A training has no batch to keep within."""
        self._until = 0

    def of(self, wanted: RequestInfo, model: str) -> Cost:
        """What a call asks for by its first message. `model` is the model's own name."""
        rule = RULES[wanted.route.path]
        if rule is CostRule.GENERATION:
            return self._generation(wanted, model)
        if rule is CostRule.REQUEST:
            return FREE
        if rule is CostRule.COUNTING:
            return self._counting(wanted)
        cost = self._encoded(wanted, self._encoder(rule, model))
        return Cost(cost, cost)

    def later(self, message: bytes, first: RequestInfo, model: str) -> int:
        """What a later message of a stream takes at most. Labels and prompt are those of the first."""
        rule = RULES[first.route.path]
        declared = self._encoder(rule, model)
        if first.header is not None:
            labels = len(first.first) if rule is CostRule.TEXTS and first.route.backend == "classification" else 0
            return min(self._wire(len(message) + labels, declared), declared.batch * declared.tokens)
        request = _encoder_request(request_info.parse(first.route.request_type, message))
        return self._texts(request, len(message), _encoder_request(first.message), declared)

    def _generation(self, wanted: RequestInfo, model: str) -> Cost:
        message: Any = wanted.message
        declared = self._of(model)
        if wanted.header is not None:
            return self._sealed_generation(wanted, declared)
        request = message.request if isinstance(message, generation_pb2.GenerateStreamRequest) else message
        output = request.max_output_tokens or _DEFAULT_OUTPUT
        if output > declared.output:
            output = declared.output
        return _bounds(
            min(self._input(request, len(wanted.first)), declared.source),
            output,
            request.candidate_count or 1,
            declared.tokens,
            self._useful,
        )

    def _counting(self, wanted: RequestInfo) -> Cost:
        """No model runs, but its text is read: by size, and however long it is, for what is too long is counted too."""
        size = len(wanted.first)
        if wanted.header is None:
            cost = self._input(wanted.message, size)
        else:
            cost = min(_cap(wanted) or UNLIMITED, size + self._template)
        return Cost(cost, cost)

    def _input(self, request: Any, size: int) -> int:
        match request.WhichOneof("input"):
            case "conversation":
                return size + self._template + _TURN * len(request.conversation.messages)
            case "token_ids":
                return len(request.token_ids.ids)
        return size + _SPECIAL

    def _sealed_generation(self, wanted: RequestInfo, declared: ModelLimits) -> Cost:
        cap = _cap(wanted) or declared.tokens
        text = len(wanted.first) + self._template
        return Cost(min(cap, text + self._useful), cap)

    def _encoded(self, wanted: RequestInfo, declared: ModelLimits) -> int:
        if wanted.header is None:
            request = _encoder_request(wanted.message)
            return self._texts(request, len(wanted.first), request, declared)
        size = min(self._wire(len(wanted.first), declared), declared.batch * declared.tokens)
        return min(_cap(wanted) or size, size)

    def _wire(self, size: int, declared: ModelLimits) -> int:
        """Texts that can't be seen, in so many bytes. Each takes a few of them, and may have the model's own prompt."""
        return _WIRE * size + self._template + declared.prompt * (size // _LEAST_TEXT)

    def _texts(self, request: Any, size: int, first: Any, declared: ModelLimits) -> int:
        """Texts of an encoder, and the labels that they are held against: each is cut or refused at a model's limit."""
        inputs, labels = len(request.inputs), _labels(first)
        texts = inputs + (len(labels) if labels is not None else 0)
        most = size + texts * _SPECIAL
        if labels is not None and request is not first:
            most += first.candidate_labels.ByteSize()
        if isinstance(first, embedding_pb2.EmbedRequest) and first.options.prompt_name:
            most += inputs * self._template
        else:
            most += texts * declared.prompt
        return max(1, min(most, texts * declared.tokens))

    def _encoder(self, rule: CostRule, model: str) -> ModelLimits:
        """What is declared of the encoder that reads the texts. A training names its result, not its encoder."""
        named = self._of(model)
        return self._trained if rule is CostRule.TRAINING else named

    def _of(self, model: str) -> ModelLimits:
        now = self._clock()
        if now >= self._until:
            self._until = now + _KNOWN_NS
            listed = tuple(self._models())
            self._declared = {each.name: _declared(each) for each in listed}
            readers = [each for each in listed if models_pb2.CAPABILITY_ZERO_SHOT in each.capabilities]
            self._trained = ModelLimits(
                tokens=max((each.max_input_tokens for each in readers), default=0) or UNLIMITED,
                prompt=max((each.default_prompt_tokens for each in readers), default=0),
            )
        return self._declared.get(model, _UNKNOWN)


def _bounds(text: int, output: int, candidates: int, context: int, useful: int) -> Cost:
    """What a generation takes: `text` is the bound of its input, `output` that of a candidate.

    An input that leaves less room for output takes less in all, so that the fullest is the one that just leaves it.
    """
    room = context - output
    cost = (text if text < room else room) + candidates * output
    least = (text if text < context else context) + candidates * (output if output < useful else useful)
    return Cost(least, cost if cost > least else least)


_UNKNOWN: Final = ModelLimits()


def _check_rules(routes: Mapping[str, Route]) -> None:
    if missing := routes.keys() - RULES.keys():
        raise RuntimeError(f"methods without a cost rule: {', '.join(sorted(missing))}")


def _encoder_request(message: Any) -> Any:
    """The request itself: those of streams hold it in one field, but for a training's."""
    return message.request if isinstance(message, _HOLDERS) else message


_HOLDERS: Final = (embedding_pb2.EmbedStreamRequest, classification_pb2.ClassifyStreamRequest)


def _declared(model: models_pb2.Model) -> ModelLimits:
    return ModelLimits(
        model.max_input_tokens or UNLIMITED,
        model.max_output_tokens or UNLIMITED,
        model.max_batch or UNLIMITED,
        model.max_source_tokens or UNLIMITED,
        model.default_prompt_tokens,
    )


def _cap(wanted: RequestInfo) -> int:
    """The most that the sender of an envelope wants to take; 0 where it does not say."""
    return wanted.header.token_cap if wanted.header is not None else 0


def _labels(request: Any) -> Any:
    """The labels of a classification, in a list; None of an embedding."""
    return request.candidate_labels.labels if isinstance(request, classification_pb2.ClassifyRequest) else None
