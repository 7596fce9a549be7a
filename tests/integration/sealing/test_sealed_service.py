"""Calls sealed to a service: the gateway polices, meters and audits what it can't read."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import client, errors
from meshgate.rpc import metadata, status
from meshgate.sealing import codec
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc, sealed_pb2
from meshgate.v1 import sealed_pb2_grpc as sealed_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.gateway_workers import gateway as workers
from tests.support.network.mesh import Mesh

GENERATE = "/meshgate.v1.GenerationService/Generate"


@asynccontextmanager
async def running(home: Path, **changes: Any) -> AsyncIterator[tuple[Mesh, ScriptedApplication]]:
    application = ScriptedApplication()
    async with meshes.mesh(home, {"generation": application, "embedding": application}, **changes) as mesh:
        yield mesh, application


@asynccontextmanager
async def channel(home: Path, target: str, token: str, **settings: Any) -> AsyncIterator[Any]:
    opened = client.connect_aio(target, ca=home / "certs" / "ca.pem", token=token, **{"sealed": "service", **settings})
    async with opened:
        yield opened


async def listed(mesh: Mesh) -> list[sealed_pb2.SealingKey]:
    async with mesh.channel() as opened:
        stub: Any = sealed_grpc.KeyServiceStub(opened)
        reply = await stub.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=mesh.auth())
        return list(reply.keys)


async def test_every_arity_is_answered_metered_and_audited(tmp_path: Path) -> None:
    async with running(tmp_path) as (mesh, application):
        application.go_on.set()
        async with channel(tmp_path, mesh.target, mesh.token()) as opened:
            generation: Any = generation_pb2_grpc.GenerationServiceStub(opened)
            embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(opened)
            request = generation_pb2.GenerateRequest(prompt="a b c")
            assert (await generation.Generate(request)).candidates[0].text == "a b c"
            replies = generation.GenerateStream(generation_pb2.GenerateStreamRequest(request=request))
            assert [reply.deltas[0].text async for reply in replies] == ["a", "b", "c"]
            wanted = [embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["x"]))] * 3
            assert len([reply async for reply in embedding.EmbedStream(iter(wanted))]) == 3
        assert application.metadata[metadata.TENANT] == "acme"
        ended = [record for record in mesh.records() if record["event"] == "ended" and "target" in record]
        assert [record["status"] for record in ended] == ["OK"] * 3
        assert ended[0]["target"] == GENERATE
        assert ended[0]["sealing_key_id"] in {key.key_id for key in await listed(mesh) if key.service}
        assert (ended[0]["input_tokens"], ended[0]["output_tokens"]) == (3, 5)


async def test_services_keys_are_listed_beside_the_gateways_own(tmp_path: Path) -> None:
    async with running(tmp_path) as (mesh, _):
        owners = {(key.recipient, key.service, key.suite) for key in await listed(mesh)}
    services = ("meshgate.v1.GenerationService", "meshgate.v1.EmbeddingService")
    assert owners == {
        *((sealed_pb2.SEALING_RECIPIENT_GATEWAY, "", suite) for suite in codec.SUITES),
        *((sealed_pb2.SEALING_RECIPIENT_SERVICE, name, suite) for name in services for suite in codec.SUITES),
    }


async def test_a_key_that_is_not_pinned_gets_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as (mesh, application):
        pins = [codec.RecipientKey.generate().public.fingerprint.hex()]
        async with channel(tmp_path, mesh.target, mesh.token(), pinned_fingerprints=pins) as opened:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
            with pytest.raises(grpc.RpcError) as caught:
                await stub.Generate(generation_pb2.GenerateRequest(prompt="a"))
        assert client.explain(caught.value).reason == "SEALING_KEY_NOT_PINNED"
        assert not application.metadata
        right = [key.fingerprint.hex() for key in await listed(mesh) if key.service]
        async with channel(tmp_path, mesh.target, mesh.token(), pinned_fingerprints=right) as opened:
            stub = generation_pb2_grpc.GenerationServiceStub(opened)
            assert await stub.Generate(generation_pb2.GenerateRequest(prompt="a"))


async def envelope(mesh: Mesh, **changes: Any) -> sealed_pb2.CallRequest:
    """A call of GENERATE, sealed to the generation service for acme's alice, with `changes`."""
    keys = await listed(mesh)
    key = next(key for key in keys if key.service.endswith("GenerationService") and key.suite == codec.X25519)
    settings = {
        "method": GENERATE,
        "tenant": "acme",
        "subject": "alice",
        "now_ms": time.time_ns() // 1_000_000,
        "token_cap": 1000,
        "recipient": sealed_pb2.SEALING_RECIPIENT_SERVICE,
        "message": generation_pb2.GenerateRequest(prompt="a").SerializeToString(),
        **changes,
    }
    message = settings.pop("message")
    sealed, _ = codec.seal_request(codec.PublicKey(key.suite, key.public_key), message, **settings)
    return sealed_pb2.CallRequest(envelope=sealed)


async def outcome(mesh: Mesh, request: sealed_pb2.CallRequest) -> errors.MeshError | None:
    async with mesh.channel() as opened:
        stub: Any = sealed_grpc.SealedServiceStub(opened)
        try:
            await stub.Call(request, metadata=mesh.auth())
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error)
    return None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject": "bob"}, "SEAL_INVALID"),
        ({"tenant": "evil"}, "SEAL_INVALID"),
        ({"now_ms": 1}, "SEAL_EXPIRED"),
        ({"model": "beta"}, "INVALID_ARGUMENT"),
        ({"method": "/meshgate.v1.GenerationService/GenerateStream"}, "INVALID_ARGUMENT"),
        ({"method": "/meshgate.v1.EmbeddingService/Embed"}, "SEAL_KEY_UNKNOWN"),
        ({"message": b"\xff"}, "MALFORMED"),
    ],
)
async def test_what_is_inside_is_held_to_the_header(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    async with running(tmp_path) as (mesh, application):
        error = await outcome(mesh, await envelope(mesh, **changes))
        assert error is not None
        assert error.reason == reason
        assert not application.metadata
        assert mesh.record_of(error)["reason"] == reason


async def test_an_envelope_is_used_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (mesh, _):
        request = await envelope(mesh)
        assert await outcome(mesh, request) is None
        error = await outcome(mesh, request)
        assert error is not None
        assert error.reason == "SEAL_REPLAYED"


async def test_policy_and_limits_hold_for_what_the_gateway_cannot_read(tmp_path: Path) -> None:
    policy = {"tenants": {"acme": {"models": ["beta"], "sealed": "required"}}}
    async with running(tmp_path, policy=policy) as (mesh, application):
        error = await outcome(mesh, await envelope(mesh))
        assert error is not None
        assert error.reason == "MODEL_NOT_ALLOWED"
        assert not application.metadata
    limits = {"principal": {"requests_per_second": 0.01, "burst": 2}}
    async with running(tmp_path / "limited", limits=limits) as (mesh, _):
        assert await outcome(mesh, await envelope(mesh)) is None  # listing the keys was the other of the two
        error = await outcome(mesh, sealed_pb2.CallRequest())
        assert error is not None


def remembered(pid: int, wanted: bytes) -> bool:
    """Whether the bytes are anywhere in the memory of a process."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            area, access, *_ = line.split()
            if access.startswith("rw"):
                start, _, end = area.partition("-")
                memory.seek(int(start, 16))
                if wanted in memory.read(int(end, 16) - int(start, 16)):
                    return True
    return False


@pytest.mark.parametrize("recipient", ["service", "gateway"])
async def test_what_is_sealed_to_a_service_is_never_in_the_gateways_memory(tmp_path: Path, recipient: str) -> None:
    """The same search finds what is sealed to the gateway, so it would find this too."""
    canary = f"canary-{secrets.token_hex(16)}"
    async with workers(tmp_path) as made:
        token = made.metadata[0][1].removeprefix("Bearer ")
        async with channel(tmp_path, made.target, token, sealed=recipient) as opened:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
            request = generation_pb2.GenerateRequest(prompt=f"{canary} end")
            stream = stub.GenerateStream(generation_pb2.GenerateStreamRequest(request=request), timeout=60)
            assert (await stream.read()).deltas[0].text == canary
            found = any(remembered(pid, canary.encode()) for pid in made.workers.values())
            assert found == (recipient == "gateway")
            made.application.go_on.set()
            assert (await stream.read()).deltas[0].text == "end"
