"""meshgate.v1.EmbeddingService: check, tokenise, queue, and encode what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshgate.errors import InvalidArgument
from meshgate.rpc import metadata
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import embedding_pb2_grpc, models_pb2
from services.batching import Batcher, Permit
from services.common import checks, ordered_stream
from services.common.caller import Caller, caller_of
from services.common.checks import TokenBudget
from services.embedding import validate, vectors
from services.embedding.model_proxy import Item, ModelProxy, Vector
from services.embedding.validate import Bounds, Plan
from services.models.model_table import ModelSlot, ModelTable
from services.text.preparing import PreparationQueue, PreparedText
from services.text.tokens import Tokens

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context

_FEW: Final = 4


@dataclass(frozen=True)
class Served:
    """A loaded model and what stands before it."""

    model: ModelProxy
    batcher: Batcher[Item, Vector]
    bounds: Bounds
    card: models_pb2.Model
    preparing: PreparationQueue


Models = ModelSlot[ModelTable[Served]]
"""Where the loaded models will be."""


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Serves the models. Raises kinds of MeshError; the guard makes them statuses."""

    def __init__(self, place: Models) -> None:
        self._place = place

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """One vector for each input."""
        caller = caller_of(context)
        served = self._place.get().find(caller.model or request.model)
        plan = validate.plan(request, served.bounds)
        async with served.batcher.permit(*caller.who) as permit:
            reply = await _embed(served, plan, TokenBudget(caller.token_cap), permit, context.time_remaining)
        metadata.report_usage(context, reply.usage.input_tokens)
        return reply

    async def EmbedStream(
        self, request_iterator: AsyncIterator[pb.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        """One response for each request, in order."""
        bulk = _Bulk(self._place, caller_of(context))
        async for reply in ordered_stream.answer(request_iterator, bulk.serve):
            metadata.report_usage(context, bulk.purse.taken)
            yield reply


class _Bulk:
    """One EmbedStream: model and options are those of its first message. It ends on the model that it began with."""

    def __init__(self, place: Models, caller: Caller) -> None:
        self.purse = TokenBudget(caller.token_cap)
        self._place = place
        self._served: Served | None = None
        self._caller = caller
        self._first: pb.EmbedRequest | None = None

    async def serve(self, message: pb.EmbedStreamRequest) -> pb.EmbedStreamResponse:
        if not message.HasField("request"):
            raise InvalidArgument.of("request", "is required")
        try:
            served = self._found(message.request)
            plan = self._plan(message.request, served)
            async with served.batcher.permit(*self._caller.who, wait=True) as permit:
                reply = await _embed(served, plan, self.purse, permit)
        except InvalidArgument as error:
            raise checks.within("request", error) from None
        return pb.EmbedStreamResponse(response=reply)

    def _found(self, request: pb.EmbedRequest) -> Served:
        if self._served is None:
            self._served = self._place.get().find(self._caller.model or request.model)
        return self._served

    def _plan(self, request: pb.EmbedRequest, served: Served) -> Plan:
        if self._first is None:
            self._first = request
        elif request.model not in ("", self._first.model):
            raise InvalidArgument.of("model", "can't change within a stream")
        elif request.HasField("options") and request.options != self._first.options:
            raise InvalidArgument.of("options", "can't change within a stream")
        whole = pb.EmbedRequest(model=self._first.model, inputs=request.inputs, options=self._first.options)
        return validate.plan(whole, served.bounds, bulk=True)


async def _embed(
    served: Served,
    plan: Plan,
    purse: TokenBudget,
    permit: Permit[Item, Vector],
    time_remaining: Callable[[], float | None] = lambda: None,
) -> pb.EmbedResponse:
    """Runs a checked request that has its slot. A stream has no `time_remaining`, since its work is not lost."""
    reading = PreparedText(served.preparing, permit.who, permit.waits)
    tokens = await served.model.tokeniser.encode(plan.inputs, plan.cut, "inputs", reading)
    lengths = [each.length for each in tokens]
    taken = sum(lengths)
    purse.take(taken)
    items = [Item(served.model, each, plan.pooling) for each in tokens]
    made = await permit.run(items, lengths, yields=plan.yields, remaining=time_remaining())
    return pb.EmbedResponse(
        embeddings=await _encoded(made, tokens, plan),
        usage=pb.EmbedUsage(input_tokens=taken),
        model=served.card.name,
        dimensions=plan.dimensions,
    )


async def _encoded(made: list[Vector], tokens: list[Tokens], plan: Plan) -> list[pb.Embedding]:
    """On a thread where there are many: for a few the way there takes longer than the work."""
    if len(made) <= _FEW:
        return _encode(made, tokens, plan)
    return await asyncio.to_thread(_encode, made, tokens, plan)


def _encode(made: list[Vector], tokens: list[Tokens], plan: Plan) -> list[pb.Embedding]:
    embeddings = []
    for vector, each in zip(made, tokens, strict=True):
        shaped = vectors.shaped(vector, plan.dimensions, normalise=plan.normalise)
        embedding = vectors.encoded(shaped, plan.encoding)
        embedding.tokens, embedding.truncated = each.length, each.cut
        embeddings.append(embedding)
    return embeddings
