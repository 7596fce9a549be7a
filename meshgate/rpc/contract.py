"""The methods that a Meshgate server may serve, by their full names: the contract's and those of grpc.health.v1."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2

from meshgate.runtime.config.problems import meant
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, models_pb2, sealed_pb2

_FILES: Final = (classification_pb2, embedding_pb2, generation_pb2, models_pb2, sealed_pb2, health_pb2)


def _methods(file: FileDescriptor) -> frozenset[str]:
    services = file.services_by_name.values()
    return frozenset(f"/{service.full_name}/{method.name}" for service in services for method in service.methods)


METHODS: Final = frozenset().union(*(_methods(file.DESCRIPTOR) for file in _FILES))


def check_pattern(pattern: str) -> None:
    """Raises ValueError for a pattern that fits no method: it would admit nobody to anything."""
    if not any(fnmatchcase(method, pattern) for method in METHODS):
        known = {*METHODS, *(f"{method.rpartition('/')[0]}/*" for method in METHODS)}
        raise ValueError(f"{pattern!r} fits no method of the contract{meant(pattern, known)}")
