"""Adapters in the gateway's list of models: only a service that has some is asked, and the list stands without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from gateway.call import Call
from gateway.forwarding.adapter_names import AdapterNames
from meshgate import errors
from meshgate.v1.models_pb2 import Model


class Service:
    """Lists what a test says."""

    def __init__(self, *models: Model, error: errors.MeshError | None = None) -> None:
        self.asked = 0
        self._models = models
        self._error = error

    async def models(self, call: Call, seconds: float) -> Iterable[Model]:
        self.asked += 1
        if self._error is not None:
            raise self._error
        return self._models


call: Any = None


async def test_the_service_says_which_there_are() -> None:
    service = Service(Model(name="m", adapters=["a", "b"]), Model(name="unseen", adapters=["c"]))
    model, other = Model(name="m", more_adapters=True), Model(name="m", dimensions=3)
    await AdapterNames({"generation": service}).tell(call, [("generation", model), ("embedding", other)])
    assert (list(model.adapters), model.more_adapters) == (["a", "b"], False)
    assert other == Model(name="m", dimensions=3)


async def test_who_has_none_is_not_asked() -> None:
    service = Service()
    await AdapterNames({"generation": service}).tell(call, [("generation", Model(name="m"))])
    assert service.asked == 0


LATE = Service(error=errors.DeadlineExceeded("late"))
REPLACED = Service(Model(name="another"))


@pytest.mark.parametrize("service", [LATE, REPLACED], ids=["late", "replaced"])
async def test_without_an_answer_there_may_be_some(service: Service) -> None:
    model = Model(name="m", more_adapters=True)
    await AdapterNames({"generation": service}).tell(call, [("generation", model)])
    assert (list(model.adapters), model.more_adapters) == ([], True)
