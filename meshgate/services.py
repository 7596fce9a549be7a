"""The table of services. Every part that needs the list of services reads it here.

A new service is one row, its package `services/<name>`, its `protos/meshgate/v1/<name>.proto` and its configuration
`<name>.toml`. The table imports nothing of Meshgate, so that the SDK, the certificates and the supervisor can read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

_PACKAGE: Final = "meshgate.v1"


class CostRule(Enum):
    """How a method is charged in tokens. Each call is charged one request besides."""

    REQUEST = "request"
    """No tokens: no model runs."""
    GENERATION = "generation"
    """The input and the output."""
    COUNTING = "counting"
    """The input, by its size."""
    TEXTS = "texts"
    """The texts, and the labels that they are compared with."""
    TRAINING = "training"
    """The texts of all messages of the call."""


@dataclass(frozen=True, slots=True)
class Method:
    """The facts of a method that its descriptor lacks."""

    cost: CostRule
    repeatable: bool = False
    """Whether the gateway may send a call to a second replica: the method changes nothing, and its request is one
    message."""


@dataclass(frozen=True, slots=True)
class Service:
    """One row of the table."""

    name: str
    """Names the package under services/, the configuration file, the certificate and the backend."""
    proto: str
    """The name of the gRPC service inside `meshgate.v1`."""
    port: int
    """Where `meshgate up` runs the first replica."""
    scope: str
    """The scope that allows the service's methods where the configuration lists no scopes."""
    methods: Mapping[str, Method]

    @property
    def full_name(self) -> str:
        """The full name of the gRPC service, as in `meshgate.v1.GenerationService`."""
        return f"{_PACKAGE}.{self.proto}"

    @property
    def repeatable(self) -> tuple[str, ...]:
        """The names of the methods that may be sent to a second replica."""
        return tuple(name for name, method in self.methods.items() if method.repeatable)

    def descriptor(self) -> ServiceDescriptor:
        """The descriptor of the gRPC service. Imports the generated module, which is why the table does not."""
        found: ServiceDescriptor = import_module(f"{_PACKAGE}.{self.name}_pb2").DESCRIPTOR.services_by_name[self.proto]
        return found


GATEWAY: Final = "gateway"
"""The name of the gateway where parts of a mesh are named. It is no service."""
GATEWAY_PORT: Final = 8443

_ROWS: Final = (
    Service(
        name="generation",
        proto="GenerationService",
        port=8451,
        scope="generate",
        methods={
            "Generate": Method(CostRule.GENERATION, repeatable=True),
            "GenerateStream": Method(CostRule.GENERATION, repeatable=True),
            "CountTokens": Method(CostRule.COUNTING, repeatable=True),
        },
    ),
    Service(
        name="embedding",
        proto="EmbeddingService",
        port=8452,
        scope="embed",
        methods={
            "Embed": Method(CostRule.TEXTS, repeatable=True),
            "EmbedStream": Method(CostRule.TEXTS),
        },
    ),
    Service(
        name="classification",
        proto="ClassificationService",
        port=8453,
        scope="classify",
        methods={
            "Classify": Method(CostRule.TEXTS, repeatable=True),
            "ClassifyStream": Method(CostRule.TEXTS),
            "TrainClassifier": Method(CostRule.TRAINING),
            "ListClassifiers": Method(CostRule.REQUEST, repeatable=True),
            "DeleteClassifier": Method(CostRule.REQUEST),
            "RollbackClassifier": Method(CostRule.REQUEST),
        },
    ),
)

SERVICES: Final[Mapping[str, Service]] = {row.name: row for row in _ROWS}
"""The services by name."""
