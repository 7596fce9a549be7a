"""meshgate.v1.ClassificationService: check, tokenise, queue, and score what comes back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from meshgate.errors import InvalidArgument, Unavailable
from meshgate.runtime import metadata
from meshgate.v1 import classification_pb2 as pb
from meshgate.v1 import classification_pb2_grpc, models_pb2, models_pb2_grpc
from services import checks, ordered
from services.batching import Batcher
from services.checks import Purse
from services.classification import scores, validate
from services.classification.model import Item, Scores, ZeroShot
from services.classification.validate import Models, Plan
from services.tokens import Cut, Tokens

if TYPE_CHECKING:
    from meshgate.runtime.interceptor import Context

_REMEMBERED_LABELS: Final = 4096


class _Labels(NamedTuple):
    """The labels of a call: vector and number of tokens of those seen lately, and the others as read."""

    known: dict[str, tuple[Scores, int]]
    fresh: dict[str, Tokens]

    def tokens(self, plan: Plan) -> int:
        """What they are charged, known or not: who asked before is no business of who asks now."""
        return sum(self.known[text][1] if text in self.known else self.fresh[text].length for text in plan.descriptions)


class Served:
    """The loaded models and what stands before them."""

    def __init__(self, models: Models, batcher: Batcher[Item, Scores], cards: Sequence[models_pb2.Model]) -> None:
        self.models = models
        self.batcher = batcher
        self.cards = cards
        self._labels: OrderedDict[str, tuple[Scores, int]] = OrderedDict()

    async def classify(self, plan: Plan, purse: Purse, *, wait: bool) -> pb.ClassifyResponse:
        """Runs a checked request. Raises InvalidArgument for one that is too long, or more than was reserved."""
        reader = plan.model.tokeniser
        if plan.pairs:
            tokens = await reader.encode_pairs(plan.texts, plan.pairs, plan.cut, "inputs")
        else:
            tokens = await reader.encode(plan.texts, plan.cut, "inputs")
        labels = await self._labels_of(plan)
        taken = sum(each.length for each in tokens) + labels.tokens(plan)
        purse.take(taken)
        rows = await self._run(plan, tokens, wait=wait)
        if isinstance(plan.model, ZeroShot):
            matrix = await self._label_matrix(labels, plan, wait=wait)
            rows = [np.asarray(plan.model.scale * (matrix @ row), dtype=np.float32) for row in rows]
        results = [_result(row, each, plan) for row, each in zip(rows, tokens, strict=True)]
        return pb.ClassifyResponse(results=results, usage=pb.ClassifyUsage(input_tokens=taken), model=plan.name)

    async def _run(self, plan: Plan, tokens: Sequence[Tokens], *, wait: bool) -> list[Scores]:
        items = [Item(plan.model, each) for each in tokens]
        return await self.batcher.submit(items, [each.length for each in tokens], yields=plan.yields, wait=wait)

    async def _labels_of(self, plan: Plan) -> _Labels:
        """Reads a plan's labels; those seen lately are known."""
        fresh = [text for text in dict.fromkeys(plan.descriptions) if text not in self._labels]
        known = {text: self._labels[text] for text in plan.descriptions if text in self._labels}
        if not fresh:
            return _Labels(known, {})
        tokens = await plan.model.tokeniser.encode(fresh, Cut.REFUSE, "candidate_labels.labels")
        return _Labels(known, dict(zip(fresh, tokens, strict=True)))

    async def _label_matrix(self, labels: _Labels, plan: Plan, *, wait: bool) -> Scores:
        """The labels' vectors [labels, dimensions]; those that are known are not computed again."""
        known = dict(labels.known)
        if labels.fresh:
            vectors = await self._run(plan, list(labels.fresh.values()), wait=wait)
            for (text, each), vector in zip(labels.fresh.items(), vectors, strict=True):
                known[text] = (vector, each.length)
        self._remember(known)
        return np.stack([known[text][0] for text in plan.descriptions])

    def _remember(self, known: dict[str, tuple[Scores, int]]) -> None:
        for text, found in known.items():
            self._labels[text] = found
            self._labels.move_to_end(text)
        while len(self._labels) > _REMEMBERED_LABELS:
            self._labels.popitem(last=False)


def _result(row: Scores, tokens: Tokens, plan: Plan) -> pb.Classification:
    labels = scores.ranked(scores.scored(row, plan.function), plan.labels, plan.top_k)
    return pb.Classification(labels=labels, tokens=tokens.length, truncated=tokens.cut)


class Place:
    """Where the loaded models will be. It is registered before they are loaded."""

    def __init__(self) -> None:
        self.served: Served | None = None

    def get(self) -> Served:
        """Raises Unavailable (STARTING) before the models are loaded."""
        if self.served is None:
            raise Unavailable("the model is not ready", reason="STARTING", retry_after=1.0)
        return self.served


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Serves all the models. Raises kinds of MeshError; the interceptor makes them statuses."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """One result for each input."""
        served = self._place.get()
        plan = validate.plan(request, served.models)
        reply = await served.classify(plan, Purse(metadata.token_cap_of(context.invocation_metadata())), wait=False)
        metadata.report_usage(context, reply.usage.input_tokens)
        return reply

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[pb.ClassifyStreamRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """One response for each request, in order."""
        bulk = _Bulk(self._place.get(), Purse(metadata.token_cap_of(context.invocation_metadata())))
        async for reply in ordered.answer(request_iterator, bulk.serve):
            metadata.report_usage(context, bulk.purse.taken)
            yield reply


class _Bulk:
    """One ClassifyStream: model, labels and options are those of its first message."""

    def __init__(self, served: Served, purse: Purse) -> None:
        self.purse = purse
        self._served = served
        self._first: pb.ClassifyRequest | None = None

    async def serve(self, message: pb.ClassifyStreamRequest) -> pb.ClassifyStreamResponse:
        if not message.HasField("request"):
            raise InvalidArgument.of("request", "required")
        try:
            plan = self._plan(message.request)
            reply = await self._served.classify(plan, self.purse, wait=True)
        except InvalidArgument as error:
            raise checks.within("request", error) from None
        return pb.ClassifyStreamResponse(response=reply)

    def _plan(self, request: pb.ClassifyRequest) -> Plan:
        first = self._first = self._first or request
        if request.model not in ("", first.model):
            raise InvalidArgument.of("model", "can't change within a stream")
        if request.HasField("options") and request.options != first.options:
            raise InvalidArgument.of("options", "can't change within a stream")
        if request.HasField("candidate_labels") and request.candidate_labels != first.candidate_labels:
            raise InvalidArgument.of("candidate_labels", "can't change within a stream")
        whole = pb.ClassifyRequest()
        whole.CopyFrom(first)
        del whole.inputs[:]
        whole.inputs.extend(request.inputs)
        return validate.plan(whole, self._served.models, bulk=True)


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Lists the models."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """The models that can do what is asked for."""
        checks.known("capability", request.capability, models_pb2.Capability.values())
        wanted = request.capability
        cards = [card for card in self._place.get().cards if not wanted or wanted in card.capabilities]
        return models_pb2.ListModelsResponse(models=cards)
