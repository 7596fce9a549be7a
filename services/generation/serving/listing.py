"""meshgate.v1.ModelService of the generation service: the models, each with the adapters that the caller may name."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from meshgate.errors import Internal, MeshError
from meshgate.v1 import models_pb2 as pb
from meshgate.v1 import models_pb2_grpc
from services.common.caller import caller_of
from services.generation.adapters import LoadedAdapters
from services.generation.serving.served_model import ServedModels
from services.models.listing import ModelServicer

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context

_log = logging.getLogger(__name__)


class GenerationModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Lists the models."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists the models with the requested capability. A caller without a tenant learns only that adapters may
        exist.
        """
        served = self._models.get()
        reply = await ModelServicer(lambda: served.cards).ListModels(request, context)
        tenant = caller_of(context).tenant
        if tenant:
            of = {each.limits.name: each.adapters for each in served.models}
            await asyncio.gather(*(_add_adapters(card, of[card.name], tenant) for card in reply.models))
        return reply


async def _add_adapters(card: pb.Model, adapters: LoadedAdapters | None, tenant: str) -> None:
    """Adds the tenant's adapters to a card. Where they can't be read, the card keeps saying that there may be some."""
    if adapters is None:
        return
    try:
        names = await adapters.names(tenant)
    except MeshError as error:
        if isinstance(error, Internal):
            _log.warning("the adapters can't be listed", extra={"model": card.name, "reason": error.message})
        return
    card.adapters[:] = names.names
    card.more_adapters = names.more
