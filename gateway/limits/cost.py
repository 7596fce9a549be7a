"""The tokens that a call may take, as far as the gateway can estimate them: it has no tokeniser.

The bound of an input is its length in bytes of UTF-8, and a few more tokens for templates and special tokens. That is a
true bound for byte-level BPE, SentencePiece with byte fallback and WordPiece: each of their tokens covers at least one
byte of the text. A request on the wire is no shorter than its texts, so its length is used. Where a tokeniser's
normalisation makes a text longer, the bound may be too small. That harms the sender alone: a service refuses an input
that is larger than its reservation. So no call takes more than its reservation, whatever the bound; the bound only has
to be large enough for honest calls. Bulk streams alone have no cap: what they take beyond the bound is charged when
they end.

The limits that a service declares (ListModels) bound the estimate further: `max_input_tokens`, which for generation
covers the input and output of a candidate together; and `max_source_tokens`. The latter covers the input alone, where
the model has an encoder of its own for it.
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
"""Special tokens around a text or a pair of them (RoBERTa's pair has the most)."""
_TURN: Final = 16
"""Tokens that a chat template puts around a turn: role names and marks."""
_DEFAULT_OUTPUT: Final = 256
"""GenerateRequest.max_output_tokens, where it is left out."""
_WIRE: Final = 2
"""Most tokens for each byte of an encoder's sealed request: the shortest text takes 3 bytes and 1 + _SPECIAL tokens."""
_LEAST_TEXT: Final = 3
"""The fewest bytes of a text on the wire."""
_KNOWN_NS: Final = 1_000_000_000
"""How long the declared limits are cached, in nanoseconds."""


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
    """Tokens to reserve: as many as there are, from `least`, the fewest that make the call worthwhile, to `most`."""

    least: int
    most: int


FREE: Final = Cost(0, 0)


class ModelLimits(NamedTuple):
    """The limits that a service declares for a model; UNLIMITED where they are not known."""

    tokens: int = UNLIMITED
    output: int = UNLIMITED
    batch: int = UNLIMITED
    source: int = UNLIMITED
    prompt: int = 0
    """Tokens that the model's default prompt adds to each input without a prompt name."""


class CostEstimator:
    """Estimates the tokens of calls."""

    def __init__(
        self,
        models: Callable[[], Iterable[models_pb2.Model]],
        clock: Callable[[], int],
        *,
        template_tokens: int,
        useful_output_tokens: int,
    ) -> None:
        """`models` lists the declared models; `clock` is in nanoseconds.

        Raises RuntimeError where a method of the contract has no rule.
        """
        _check_rules({**MODEL_ROUTES, **LOCAL_ROUTES})
        self._models = models
        self._clock = clock
        self._template = template_tokens
        self._useful = useful_output_tokens
        self._declared: dict[str, ModelLimits] = {}
        self._trained = _UNKNOWN
        """The limits of the encoder that training uses. Training has no batch limit."""
        self._until = 0

    def of(self, wanted: RequestInfo, model: str) -> Cost:
        """The cost of a call by its first message. `model` is the model's own name."""
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
        """The most tokens that a later message of a stream takes. Labels and prompt are those of the first message."""
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
        """The text is read and no model runs. The cost is by size, however long the text: a text that is too long is
        counted too.
        """
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
        """Sealed texts in so many bytes. Each takes a few bytes, and may have the model's default prompt."""
        return _WIRE * size + self._template + declared.prompt * (size // _LEAST_TEXT)

    def _texts(self, request: Any, size: int, first: Any, declared: ModelLimits) -> int:
        """Texts of an encoder, and the labels with which they are compared: each is cut or refused at the model's
        limit.
        """
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
        """The limits of the encoder that reads the texts. A training call names its result, not its encoder."""
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
    """The cost of a generation: `text` is the bound of its input, `output` that of a candidate.

    An input that leaves less room for output takes less in all, so the most expensive input is the one that just leaves
    it.
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
    """The request itself: messages of streams hold it in one field, except for training."""
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
    """The most tokens that the sender of an envelope wants to take; 0 where it does not say."""
    return wanted.header.token_cap if wanted.header is not None else 0


def _labels(request: Any) -> Any:
    """The labels of a classification, in a list; None for an embedding."""
    return request.candidate_labels.labels if isinstance(request, classification_pb2.ClassifyRequest) else None
