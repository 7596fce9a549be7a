"""meshgate.v1.ModelService of this service: its one model and every limit of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshgate.errors import InvalidArgument
from meshgate.v1 import models_pb2 as pb
from meshgate.v1 import models_pb2_grpc
from services.generation.served import Place, Served

if TYPE_CHECKING:
    from meshgate.runtime.interceptor import Context


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Lists the model."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """The model, if it can do what is asked for."""
        if request.capability not in pb.Capability.values():
            raise InvalidArgument.of("capability", "not a known capability")
        model = _describe(self._place.get())
        wanted = not request.capability or request.capability in model.capabilities
        return pb.ListModelsResponse(models=[model] if wanted else [])


def _describe(served: Served) -> pb.Model:
    chat = [pb.CAPABILITY_CHAT] if served.prompts.chat else []
    return pb.Model(
        name=served.limits.name,
        aliases=served.limits.aliases,
        capabilities=[pb.CAPABILITY_GENERATE, *chat],
        default=True,
        max_input_tokens=served.limits.context,
        max_output_tokens=served.limits.max_output_tokens,
        max_candidates=served.limits.max_candidates,
        dtype=served.dtype,
    )
