"""meshgate.v1.ClassificationService: who calls, what is asked, and who answers it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from meshgate.errors import InvalidArgument, PermissionDenied
from meshgate.rpc import metadata
from meshgate.v1 import classification_pb2 as pb
from meshgate.v1 import classification_pb2_grpc
from services.classification.custom import proto_mapping
from services.classification.served import Served
from services.classification.validate import Plan
from services.common import checks, ordered_stream
from services.common.caller import Caller, caller_of
from services.common.checks import TokenBudget
from services.models.model_table import ModelSlot

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context


class ClassificationServicer(classification_pb2_grpc.ClassificationServiceServicer):
    """Serves all the models. Raises kinds of MeshError; the guard makes them statuses."""

    def __init__(self, place: ModelSlot[Served]) -> None:
        self._place = place

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """One result for each input."""
        served, caller = self._place.get(), caller_of(context)
        request.model = caller.model or request.model
        plan = await served.plan(request, caller.tenant)
        async with served.batcher.permit(*caller.who) as permit:
            reply = await served.classify(plan, TokenBudget(caller.token_cap), permit, context.time_remaining)
        metadata.report_usage(context, reply.usage.input_tokens)
        return reply

    async def ClassifyStream(
        self, request_iterator: AsyncIterator[pb.ClassifyStreamRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """One response for each request, in order."""
        bulk = _Bulk(self._place.get(), caller_of(context))
        async for reply in ordered_stream.answer(request_iterator, bulk.serve):
            metadata.report_usage(context, bulk.purse.taken)
            yield reply

    async def TrainClassifier(
        self, request_iterator: AsyncIterator[pb.TrainClassifierRequest], context: Context
    ) -> AsyncIterator[pb.TrainClassifierResponse]:
        """How far it is, and in the end how good it is."""
        trainer, caller = self._place.get().custom.trainer, _owner(context)
        purse = TokenBudget(caller.token_cap)
        async for reply in trainer.train(request_iterator, caller, purse):
            metadata.report_usage(context, purse.taken)
            yield reply

    async def ListClassifiers(self, request: pb.ListClassifiersRequest, context: Context) -> pb.ListClassifiersResponse:
        """The tenant's own."""
        manifests = await self._place.get().custom.owned.all(_owner(context).tenant)
        return pb.ListClassifiersResponse(classifiers=map(proto_mapping.classifier, manifests))

    async def DeleteClassifier(
        self, request: pb.DeleteClassifierRequest, context: Context
    ) -> pb.DeleteClassifierResponse:
        """Forgets one of the tenant's own."""
        await self._place.get().custom.owned.delete(_owner(context).tenant, request.model)
        return pb.DeleteClassifierResponse()

    async def RollbackClassifier(
        self, request: pb.RollbackClassifierRequest, context: Context
    ) -> pb.RollbackClassifierResponse:
        """Serves another version of one of the tenant's own."""
        version = request.version if request.HasField("version") else None
        manifest = await self._place.get().custom.owned.serve(_owner(context).tenant, request.model, version)
        return pb.RollbackClassifierResponse(classifier=proto_mapping.classifier(manifest))


class _Bulk:
    """One ClassifyStream: model, labels and options are those of its first message."""

    def __init__(self, served: Served, caller: Caller) -> None:
        self.purse = TokenBudget(caller.token_cap)
        self._served = served
        self._caller = caller
        self._first: pb.ClassifyRequest | None = None

    async def serve(self, message: pb.ClassifyStreamRequest) -> pb.ClassifyStreamResponse:
        if not message.HasField("request"):
            raise InvalidArgument.of("request", "is required")
        try:
            plan = await self._plan(message.request)
            async with self._served.batcher.permit(*self._caller.who, wait=True) as permit:
                reply = await self._served.classify(plan, self.purse, permit)
        except InvalidArgument as error:
            raise checks.within("request", error) from None
        return pb.ClassifyStreamResponse(response=reply)

    async def _plan(self, request: pb.ClassifyRequest) -> Plan:
        first = self._first = self._first or request
        if request.model not in ("", first.model):
            raise InvalidArgument.of("model", "can't change within a stream")
        if request.HasField("options") and request.options != first.options:
            raise InvalidArgument.of("options", "can't change within a stream")
        if request.HasField("candidate_labels") and request.candidate_labels != first.candidate_labels:
            raise InvalidArgument.of("candidate_labels", "can't change within a stream")
        whole = pb.ClassifyRequest()
        whole.CopyFrom(first)
        whole.model = self._caller.model or first.model
        del whole.inputs[:]
        whole.inputs.extend(request.inputs)
        return await self._served.plan(whole, self._caller.tenant, bulk=True)


def _owner(context: Context) -> Caller:
    """Whose classifiers a call is about. Raises PermissionDenied (TENANT_UNKNOWN) where nobody says."""
    caller = caller_of(context)
    if not caller.tenant:
        raise PermissionDenied("classifiers of one's own belong to a tenant", reason="TENANT_UNKNOWN")
    return caller
