"""The methods that a Meshgate server may serve, by their full names: the contract's and those of grpc.health.v1."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from meshgate.runtime.config.problems import meant
from meshgate.services import SERVICES
from meshgate.v1 import models_pb2, sealed_pb2


def _services() -> Iterator[ServiceDescriptor]:
    yield from (service.descriptor() for service in SERVICES.values())
    for file in (models_pb2, sealed_pb2, health_pb2):
        yield from file.DESCRIPTOR.services_by_name.values()


METHODS: Final = frozenset(
    f"/{service.full_name}/{method.name}" for service in _services() for method in service.methods
)


def check_pattern(pattern: str) -> None:
    """Raises ValueError for a pattern that fits no method: it would admit no caller."""
    if not any(fnmatchcase(method, pattern) for method in METHODS):
        known = {*METHODS, *(f"{method.rpartition('/')[0]}/*" for method in METHODS)}
        raise ValueError(f"{pattern!r} fits no method of the contract{meant(pattern, known)}")
