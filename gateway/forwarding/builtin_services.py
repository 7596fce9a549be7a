"""The services that the gateway answers by itself: ModelService and KeyService. They pass the pipeline like any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from gateway import request_info
from gateway.authorisation.policy import Policy
from gateway.call import Call
from gateway.forwarding.adapter_names import AdapterNames
from gateway.forwarding.message_relay import MessageRelay
from gateway.forwarding.model_catalogue import ModelCatalogue
from gateway.principal import Principal
from gateway.routes import Route
from meshgate import errors
from meshgate.v1 import models_pb2, sealed_pb2

Keys = Callable[[], list[sealed_pb2.SealingKey]]


class BuiltinServices:
    """Answers unary calls from what the gateway knows; what adapters there are the services know."""

    def __init__(self, catalogue: ModelCatalogue, policy: Policy, adapters: AdapterNames, keys: Keys) -> None:
        self._catalogue = catalogue
        self._policy = policy
        self._adapters = adapters
        self._keys = keys

    async def forward(self, call: Call, route: Route, first: bytes, passage: MessageRelay) -> None:
        """Sends the one reply."""
        request: Any = request_info.parse(route.request_type, first)
        if isinstance(request, models_pb2.ListModelsRequest):
            reply: Message = await self._models(request, call)
        else:
            reply = self._sealing_keys(request)
        await passage.send(reply.SerializeToString())

    async def _models(self, request: models_pb2.ListModelsRequest, call: Call) -> models_pb2.ListModelsResponse:
        principal = call.principal
        assert principal is not None, "authenticated before"  # noqa: S101 - the pipeline's order
        wanted = request.capability
        if wanted not in models_pb2.Capability.values():
            raise errors.InvalidArgument.of("capability", "not a capability that this gateway knows")
        shown = [
            (backend, self._as_seen(backend, model, principal))
            for backend, model in self._catalogue.listed()
            if self._policy.visible(principal, model.name) and (not wanted or wanted in model.capabilities)
        ]
        await self._adapters.tell(call, shown)
        return models_pb2.ListModelsResponse(models=[model for _, model in shown])

    def _as_seen(self, backend: str, model: models_pb2.Model, principal: Principal) -> models_pb2.Model:
        """A copy of the model, marked as the default where it is the one of the caller's tenant."""
        seen = models_pb2.Model()
        seen.CopyFrom(model)
        own = self._policy.default_model(principal, backend)
        if own:
            seen.default = self._catalogue.resolve(backend, own) == model.name
        return seen

    def _sealing_keys(self, request: sealed_pb2.ListSealingKeysRequest) -> sealed_pb2.ListSealingKeysResponse:
        wanted = request.recipient
        if wanted not in sealed_pb2.SealingRecipient.values():
            raise errors.InvalidArgument.of("recipient", "not a recipient that this gateway knows")
        keys = [key for key in self._keys() if not wanted or key.recipient == wanted]
        return sealed_pb2.ListSealingKeysResponse(keys=keys)
