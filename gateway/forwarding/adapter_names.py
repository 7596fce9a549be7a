"""The adapters that a caller may name. Each tenant has its own, so a service is asked in the caller's name, call by
call. The gateway keeps none of them, so it cannot list one tenant's adapters to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from gateway.call import Call
from meshgate import errors
from meshgate.v1 import models_pb2

_SECONDS: Final = 2.0
"""How long a service may take. Without its answer a model is still listed, with `more_adapters` set."""


class AdapterLookup(Protocol):
    """A service, as far as it concerns us."""

    async def models(self, call: Call, seconds: float) -> Iterable[models_pb2.Model]: ...


class AdapterNames:
    """Asks the services."""

    def __init__(self, backends: Mapping[str, AdapterLookup]) -> None:
        self._backends = backends

    async def tell(self, call: Call, listed: Sequence[tuple[str, models_pb2.Model]]) -> None:
        """Writes them into those of `listed`, models with their backends, that have adapters."""
        for backend in dict.fromkeys(backend for backend, model in listed if model.more_adapters):
            try:
                found = {model.name: model for model in await self._backends[backend].models(call, _SECONDS)}
            except errors.MeshError:
                continue
            for model in [model for each, model in listed if each == backend and model.name in found]:
                model.adapters[:] = found[model.name].adapters
                model.more_adapters = found[model.name].more_adapters
