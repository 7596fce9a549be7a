"""Every method of the contract under every kind of limit, in the clear and sealed: charged as its rule says, or refused
for that limit, and never an error of ours. Methods are read from the descriptors, so that a new one is tested as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from gateway.limits.cost import RULES, CostEstimator
from gateway.routes import LOCAL_ROUTES, MODEL_ROUTES, PUBLIC_ROUTES, SEALED_ROUTES, Route
from meshgate import client
from meshgate.client import explain
from meshgate.services import CostRule
from meshgate.v1 import (
    classification_pb2,
    classification_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    sealed_pb2,
    sealed_pb2_grpc,
)
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

STUBS: Mapping[str, ModuleType] = {
    "GenerationService": generation_pb2_grpc,
    "EmbeddingService": embedding_pb2_grpc,
    "ClassificationService": classification_pb2_grpc,
    "ModelService": models_pb2_grpc,
    "KeyService": sealed_pb2_grpc,
}
MODULES: Mapping[str, ModuleType] = {
    "generation": generation_pb2,
    "embedding": embedding_pb2,
    "classification": classification_pb2,
}
TEXT = "what is charged by its length: " + "x" * 40
SEALS: Sequence[bool | str] = (False, True, "service")
LIMITS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "requests_per_second": {
        "small": {"requests_per_second": 0.001, "burst": 1},
        "large": {"requests_per_second": 1000, "burst": 1000},
    },
    **{
        kind: {"small": {kind: 1}, "large": {kind: 100_000}}
        for kind in ("tokens_per_minute", "concurrent_calls", "concurrent_streams")
    },
}


FREE = {"requests_per_second": 1000, "burst": 1000, "tokens_per_minute": 1_000_000}


class Anything:
    """A service that answers every method of its part of the contract with an empty reply."""

    def __init__(self, part: str) -> None:
        self.name = part
        self.failed = asyncio.Event()
        self._service = f"{part.capitalize()}Service"
        methods = MODULES[part].DESCRIPTOR.services_by_name[self._service].methods
        for method in methods:
            reply = MODEL_ROUTES[f"/meshgate.v1.{self._service}/{method.name}"].response_type
            setattr(self, method.name, _answer(reply, method.client_streaming, method.server_streaming))

    async def start(self) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        getattr(STUBS[self._service], f"add_{self._service}Servicer_to_server")(self, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self.name), server)
        return (f"meshgate.v1.{self._service}", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        return None


def _answer(reply: Any, client_streams: bool, server_streams: bool) -> Any:
    async def one(request: Any, context: Any) -> Any:
        return reply()

    async def many(requests: Any, context: Any) -> AsyncIterator[Any]:
        if client_streams:
            async for _ in requests:
                pass
        yield reply()

    return many if server_streams else one


class _Models(models_pb2_grpc.ModelServiceServicer):
    def __init__(self, part: str) -> None:
        self._name = f"any-{part}"

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        model = models_pb2.Model(name=self._name, default=True, max_input_tokens=1000)
        return models_pb2.ListModelsResponse(models=[model])


def request_of(route: Route) -> Any:
    """A request that says something, where there is something to say."""
    texts: dict[str, Any] = {
        "GenerateRequest": generation_pb2.GenerateRequest(prompt=TEXT, max_output_tokens=5),
        "CountTokensRequest": generation_pb2.CountTokensRequest(prompt=TEXT),
        "EmbedRequest": embedding_pb2.EmbedRequest(inputs=[TEXT]),
        "ClassifyRequest": classification_pb2.ClassifyRequest(
            inputs=[classification_pb2.ClassificationInput(text=TEXT)]
        ),
        "TrainClassifierRequest": classification_pb2.TrainClassifierRequest(
            model="mine", inputs=[classification_pb2.LabelledInput(text=TEXT, label="a")]
        ),
    }
    name = route.request_type.DESCRIPTOR.name
    if name in texts:
        return texts[name]
    inner = texts.get(name.replace("Stream", ""))
    make: Any = route.request_type
    return make() if inner is None else make(request=inner)


async def outcome(channel: Any, route: Route) -> str:
    """OK, or why the call was refused."""
    stub: Any = getattr(STUBS[route.service.rpartition(".")[2]], f"{route.service.rpartition('.')[2]}Stub")(channel)
    method, request = getattr(stub, route.path.rpartition("/")[2]), request_of(route)
    try:
        if not route.server_streams:
            await method(request, timeout=20)
        else:
            async for _ in method(iter([request] * 2) if route.client_streams else request, timeout=20):
                pass
    except grpc.RpcError as error:
        return explain(error).reason
    return "OK"


def routes(seal: bool | str) -> list[Route]:
    """All methods; sealed, those that carry content."""
    return [*MODEL_ROUTES.values(), *(() if seal else LOCAL_ROUTES.values())]


def twice(kind: str, size: str, rule: CostRule, route: Route) -> tuple[str, str]:
    """What the same call gets, made twice, one after the other."""
    if size == "small" and kind == "requests_per_second":
        return "OK", "RATE_LIMITED"
    if size == "small" and kind == "tokens_per_minute" and rule is not CostRule.REQUEST:
        # A stream's second message already finds the bucket empty.
        return ("TOKENS_EXHAUSTED" if route.client_streams else "OK"), "TOKENS_EXHAUSTED"
    return "OK", "OK"


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("level", ["principal", "tenant", "model"])
async def test_each_method_is_charged_by_its_rule(tmp_path: Path, level: str, kind: str, size: str) -> None:
    said = LIMITS[kind][size]
    names = [f"any-{part}" for part in MODULES] + ["mine"]
    limits = {"models": {name: {"principal": said} for name in names}} if level == "model" else {level: said}
    free = {"tenants": {"keys": dict.fromkeys(("tenant", "principal"), FREE)}, "stream_wait_seconds": 0}
    applications = {part: Anything(part) for part in MODULES}
    async with meshes.mesh(tmp_path, applications, limits={**limits, **free}) as mesh:
        found, wanted = {}, {}
        for seal in SEALS:
            async with opened(mesh, seal) as channel:
                for number, route in enumerate(routes(seal)):
                    name = f"{route.path} sealed={seal}"
                    made = Bearing(channel, mesh.token(tenant=f"tenant-{seal}-{number}"))
                    found[name] = await outcome(made, route), await outcome(made, route)
                    charged = level != "model" or route.path in MODEL_ROUTES
                    wanted[name] = twice(kind, size, RULES[route.path], route) if charged else ("OK", "OK")
        assert found == wanted
        assert not [record for record in mesh.records() if record.get("status") == "INTERNAL"]
        if kind == "tokens_per_minute":
            check_reserved(mesh)


@asynccontextmanager
async def opened(mesh: Mesh, seal: Any) -> AsyncIterator[Any]:
    """A channel that knows the keys to seal to, so that no caller of the matrix is charged for asking."""
    ca, token = mesh.home / "certs" / "ca.pem", mesh.token(tenant="keys")
    async with client.connect_aio(mesh.target, ca=ca, token=token, sealed=seal) as channel:
        for part in MODULES:
            first = next(route for route in MODEL_ROUTES.values() if route.backend == part)
            await outcome(channel, first)
        yield channel


class Bearing:
    """A channel whose calls bring a token of their own."""

    def __init__(self, channel: Any, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __getattr__(self, arity: str) -> Any:
        def of(*args: Any, **kwargs: Any) -> Any:
            method = getattr(self._channel, arity)(*args, **kwargs)
            return lambda request, timeout: method(request, timeout=timeout, metadata=self._metadata)

        return of


def check_reserved(mesh: Mesh) -> None:
    """Methods with texts reserve tokens, the others none."""
    ended = [record for record in mesh.records() if record["event"] == "ended" and record["status"] == "OK"]
    for record in ended:
        rule = RULES[record.get("target", record["method"])]
        assert (record.get("tokens_reserved", 0) > 0) == (rule is not CostRule.REQUEST), record


def test_every_method_of_the_contract_has_a_rule() -> None:
    assert set(RULES) == PUBLIC_ROUTES.keys() - SEALED_ROUTES.keys()
    assert {path for service in sealed_pb2.DESCRIPTOR.services_by_name.values() for path in _paths(service)} <= (
        RULES.keys() | SEALED_ROUTES.keys()
    )


def _paths(service: Any) -> list[str]:
    return [f"/{service.full_name}/{method.name}" for method in service.methods]


def test_a_method_without_a_rule_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {path: rule for path, rule in RULES.items() if not path.endswith("/TrainClassifier")}
    monkeypatch.setattr("gateway.limits.cost.RULES", rules)
    with pytest.raises(RuntimeError, match=r"without a cost rule: /meshgate\.v1\.Classif.*/TrainClassifier"):
        CostEstimator(tuple, time.monotonic_ns, template_tokens=0, useful_output_tokens=1)
