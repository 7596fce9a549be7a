"""meshgate.v1.ModelService of a service: what it has loaded, and every limit of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from meshgate.v1 import models_pb2 as pb
from meshgate.v1 import models_pb2_grpc
from services.common import checks

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Lists the models."""

    def __init__(self, cards: Callable[[], Iterable[pb.Model]]) -> None:
        """`cards` gives what is loaded now, and raises Unavailable (STARTING) before anything is."""
        self._cards = cards

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """The models that can do what is asked for."""
        wanted = request.capability
        checks.known("capability", wanted, pb.Capability)
        shown = [card for card in self._cards() if not wanted or wanted in card.capabilities]
        return pb.ListModelsResponse(models=shown)
