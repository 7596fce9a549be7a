"""The methods that the gateway forwards, read from the contract's own descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from meshgate.services import GATEWAY, SERVICES
from meshgate.v1 import models_pb2, sealed_pb2


@dataclass(frozen=True, slots=True)
class Route:
    """One method: where it goes and what travels on it."""

    path: str
    """Full method name, `/package.Service/Method`."""
    backend: str
    """The name of the service that answers it, or GATEWAY."""
    service: str
    """Full service name."""
    request_type: type[Message]
    response_type: type[Message]
    client_streams: bool
    server_streams: bool


_LOCAL: Final = (
    models_pb2.DESCRIPTOR.services_by_name["ModelService"],
    sealed_pb2.DESCRIPTOR.services_by_name["KeyService"],
)
_SEALED: Final = sealed_pb2.DESCRIPTOR.services_by_name["SealedService"]


def _route(backend: str, service: ServiceDescriptor, method: MethodDescriptor) -> Route:
    return Route(
        path=f"/{service.full_name}/{method.name}",
        backend=backend,
        service=service.full_name,
        request_type=message_factory.GetMessageClass(method.input_type),
        response_type=message_factory.GetMessageClass(method.output_type),
        client_streams=method.client_streaming,
        server_streams=method.server_streaming,
    )


def _routes(backend: str, service: ServiceDescriptor) -> dict[str, Route]:
    return {route.path: route for route in (_route(backend, service, method) for method in service.methods)}


SEALED_ROUTES: Final[Mapping[str, Route]] = _routes(GATEWAY, _SEALED)
"""The methods that carry another method inside."""

LOCAL_ROUTES: Final[Mapping[str, Route]] = {path: r for s in _LOCAL for path, r in _routes(GATEWAY, s).items()}
"""The methods that the gateway answers by itself."""

MODEL_ROUTES: Final[Mapping[str, Route]] = {
    path: route for name, service in SERVICES.items() for path, route in _routes(name, service.descriptor()).items()
}
"""The methods of the services."""

PUBLIC_ROUTES: Final[Mapping[str, Route]] = {**MODEL_ROUTES, **LOCAL_ROUTES, **SEALED_ROUTES}
"""All methods that a caller may name. Any other method is refused, and audited as refused."""


def relay_of(inner: Route, sealed: Route) -> Route:
    """Where a call of `sealed` with an envelope for the service of `inner` goes: that service's own SealedService."""
    return replace(sealed, backend=inner.backend)
