"""A seal is no way around a model's limits: sealed or plain, a call is charged to the model that does the work."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import client
from meshgate.client import explain
from meshgate.rpc import metadata
from meshgate.v1 import classification_pb2 as pb
from meshgate.v1 import classification_pb2_grpc, models_pb2, models_pb2_grpc
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

CALLS = 10
BURST = 2
LABELS = pb.CandidateLabels(labels=[pb.CandidateLabel(name="yes"), pb.CandidateLabel(name="no")])


class Classifying(classification_pb2_grpc.ClassificationServiceServicer, models_pb2_grpc.ModelServiceServicer):
    """A classifier, the default, and `zero` for labels of the call's own; both without a model."""

    name = "classifying"

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def start(self) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        classification_pb2_grpc.add_ClassificationServiceServicer_to_server(self, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(self, server)
        return ("meshgate.v1.ClassificationService", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        return None

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        metadata.report_usage(context, 3)
        return pb.ClassifyResponse(model="zero" if request.HasField("candidate_labels") else "classifier")

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        zero = models_pb2.Model(name="zero", capabilities=[models_pb2.CAPABILITY_ZERO_SHOT])
        classifier = models_pb2.Model(name="classifier", default=True, capabilities=[models_pb2.CAPABILITY_CLASSIFY])
        return models_pb2.ListModelsResponse(models=[classifier, zero])


async def outcomes(mesh: Mesh, request: pb.ClassifyRequest, *, sealed: bool | str) -> Counter[str]:
    """How often the call was answered, or refused and why, of a caller who makes it again and again."""
    found: Counter[str] = Counter()
    token = mesh.token(subject=f"sealed-{sealed}-{request.model}")
    ca = mesh.home / "certs" / "ca.pem"
    async with client.connect_aio(mesh.target, ca=ca, token=token, sealed=sealed) as channel:  # type: ignore[arg-type]
        stub: Any = classification_pb2_grpc.ClassificationServiceStub(channel)
        for _ in range(CALLS):
            try:
                found[(await stub.Classify(request, timeout=20)).model] += 1
            except grpc.RpcError as error:
                found[explain(error).reason] += 1
    return found


@pytest.mark.parametrize("sealed", [False, True, "service"])
async def test_a_models_limit_holds_however_the_call_comes(tmp_path: Path, sealed: bool | str) -> None:
    limits = {"models": {"zero": {"principal": {"requests_per_second": 0.01, "burst": BURST}}}}
    application = Classifying()  # type: ignore[abstract]  # the other methods are not called
    async with meshes.mesh(tmp_path, {"classification": application}, limits=limits) as mesh:
        named = pb.ClassifyRequest(model="zero", inputs=[pb.ClassificationInput(text="a")], candidate_labels=LABELS)
        assert await outcomes(mesh, named, sealed=sealed) == {"zero": BURST, "RATE_LIMITED": CALLS - BURST}
        unnamed = pb.ClassifyRequest(inputs=named.inputs, candidate_labels=LABELS)
        refused = {"INVALID_ARGUMENT": CALLS} if sealed else {"zero": BURST, "RATE_LIMITED": CALLS - BURST}
        assert await outcomes(mesh, unnamed, sealed=sealed) == refused
        plain = pb.ClassifyRequest(inputs=named.inputs)
        assert await outcomes(mesh, plain, sealed=sealed) == {"classifier": CALLS}
        assert {record["model"] for record in mesh.records() if "input_tokens" in record} == {"zero", "classifier"}
