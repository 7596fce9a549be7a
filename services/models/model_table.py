"""Where what is loaded will be, and which name means which model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from meshgate.errors import Unavailable
from meshgate.v1 import models_pb2
from services.common import checks


class Listed(Protocol):
    """A loaded model that can say what it is."""

    @property
    def card(self) -> models_pb2.Model: ...


ServedT = TypeVar("ServedT")
ListedT = TypeVar("ListedT", bound=Listed)


class ModelSlot(Generic[ServedT]):
    """Where what is served will be. Servicers are registered before anything is loaded.

    It is replaced whole. A call keeps what it found when it began, so it ends on the model that it began with, and that
    is freed with the last such call.
    """

    def __init__(self) -> None:
        self.served: ServedT | None = None

    def get(self) -> ServedT:
        """Raises Unavailable (STARTING) before the models are loaded."""
        if self.served is None:
            raise Unavailable("the model is not ready", reason="STARTING", retry_after=1.0)
        return self.served


class ModelTable(Generic[ListedT]):
    """Loaded models by all their names. A table never changes: another replaces it."""

    def __init__(self, models: Iterable[ListedT]) -> None:
        """At least one; the one whose card says so is the default."""
        self.models = tuple(models)
        self.default = next(model for model in self.models if model.card.default)
        self._names = {name: model for model in self.models for name in (model.card.name, *model.card.aliases)}

    @property
    def cards(self) -> list[models_pb2.Model]:
        """The reply of ListModels."""
        return [model.card for model in self.models]

    def find(self, name: str) -> ListedT:
        """The model that a request means; no name means the default. Raises InvalidArgument for too long a name, and
        NotFound (MODEL_NOT_FOUND).
        """
        if not name:
            return self.default
        checks.size("model", name, 0, checks.NAME_BYTES)
        found = self._names.get(name)
        if found is None:
            raise checks.no_model(name)
        return found
