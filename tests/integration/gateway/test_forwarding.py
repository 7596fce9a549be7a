"""The gateway over real TLS, before services without a model: forwarding, deadlines, cancellation, refusals, audit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.rpc import status
from meshgate.sealing import codec
from meshgate.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    sealed_pb2,
    sealed_pb2_grpc,
)
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh, refused


class Running:
    """A mesh with one scripted application behind two of its names."""

    def __init__(self, mesh: Mesh, application: ScriptedApplication, channel: Any) -> None:
        self.mesh = mesh
        self.application = application
        self.generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        self.embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        self.sealed: Any = sealed_pb2_grpc.SealedServiceStub(channel)
        self.keys: Any = sealed_pb2_grpc.KeyServiceStub(channel)
        self.channel = channel


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    application = ScriptedApplication()
    async with (
        meshes.mesh(tmp_path, {"generation": application, "embedding": application}) as mesh,
        mesh.channel() as channel,
    ):
        yield Running(mesh, application, channel)


def ask(prompt: str = "a b c", model: str = "") -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(prompt=prompt, model=model)


async def test_a_unary_call_is_forwarded_with_who_calls(running: Running) -> None:
    reply = await running.generation.Generate(ask("hello"), metadata=running.mesh.auth(), timeout=20)
    assert reply.candidates[0].text == "hello"
    seen = running.application.metadata
    assert seen["x-meshgate-tenant"] == "acme"
    assert "authorization" not in seen
    assert running.application.time_remaining is not None
    assert running.application.time_remaining < 20


async def test_a_caller_cannot_speak_for_the_gateway(running: Running) -> None:
    forged = (*running.mesh.auth(), ("x-meshgate-tenant", "evil"), ("x-meshgate-token-cap", "9"))
    await running.generation.Generate(ask(), metadata=forged)
    assert running.application.metadata["x-meshgate-tenant"] == "acme"
    assert "x-meshgate-token-cap" not in running.application.metadata


async def test_a_server_stream_arrives_as_it_is_made(running: Running) -> None:
    request = generation_pb2.GenerateStreamRequest(request=ask())
    stream = running.generation.GenerateStream(request, metadata=running.mesh.auth())
    assert (await stream.read()).deltas[0].text == "a"  # before the service has made the rest
    running.application.go_on.set()
    assert [(await stream.read()).deltas[0].text for _ in range(2)] == ["b", "c"]


async def test_a_bidirectional_stream_answers_each_in_turn(running: Running) -> None:
    stream = running.embedding.EmbedStream(metadata=running.mesh.auth())
    for text in ("one", "three"):
        request = embedding_pb2.EmbedRequest(inputs=[text])
        await stream.write(embedding_pb2.EmbedStreamRequest(request=request))
        assert (await stream.read()).response.embeddings[0].tokens == len(text)
    await stream.done_writing()
    assert await stream.code() == grpc.StatusCode.OK


async def test_a_departed_caller_ends_the_work(running: Running) -> None:
    request = generation_pb2.GenerateStreamRequest(request=ask())
    stream = running.generation.GenerateStream(request, metadata=running.mesh.auth())
    await stream.read()
    stream.cancel()
    async with asyncio.timeout(10):
        await running.application.abandoned.wait()
    await running.mesh.gateway.stop()
    assert [r["status"] for r in running.mesh.records() if r["event"] == "ended"] == ["CANCELLED"]


async def test_a_deadline_ends_the_work_and_says_so(running: Running) -> None:
    request = generation_pb2.GenerateStreamRequest(request=ask())
    stream = running.generation.GenerateStream(request, metadata=running.mesh.auth(), timeout=3)
    await stream.read()  # it is under way
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await running.application.abandoned.wait()


async def test_every_call_leaves_its_records(running: Running) -> None:
    await running.generation.Generate(ask(), metadata=running.mesh.auth())
    admitted, ended = running.mesh.records()
    assert (admitted["event"], ended["event"], ended["status"]) == ("admitted", "ended", "OK")
    assert admitted["request_id"] == ended["request_id"] == running.application.metadata["x-meshgate-request-id"]
    assert (ended["tenant"], ended["subject"], ended["model"]) == ("acme", "alice", "alpha")
    assert (ended["input_tokens"], ended["output_tokens"]) == (3, 5)


async def test_models_resolve_by_alias_and_are_shown_by_tenant(tmp_path: Path) -> None:
    policy = {"tenants": {"acme": {"models": ["beta"]}}}
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, policy=policy) as mesh:
        assert await meshes.models(mesh, mesh.token()) == ["beta"]
        assert await meshes.models(mesh, mesh.token(tenant="other")) == []
        async with mesh.channel() as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            error = await refused(stub.Generate(ask(model="first"), metadata=mesh.auth()))
            assert (type(error), error.reason) == (errors.PermissionDenied, "MODEL_NOT_ALLOWED")
            assert mesh.record_of(error)["model"] == "alpha"


async def test_over_the_rate_is_told_when_to_come_back(tmp_path: Path) -> None:
    limits = {"principal": {"requests_per_second": 0.1, "burst": 1}}
    async with (
        meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, limits=limits) as mesh,
        mesh.channel() as channel,
    ):
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        await stub.Generate(ask(), metadata=mesh.auth())
        error = await refused(stub.Generate(ask(), metadata=mesh.auth()))
        assert isinstance(error, errors.LimitExceeded)
        assert (error.reason, error.limit) == ("RATE_LIMITED", "requests_per_second")
        assert 0 < (error.retry_after or 0) <= 10
        assert mesh.record_of(error)["event"] == "refused"


async def test_a_tenant_can_be_sealed_only(tmp_path: Path) -> None:
    policy = {"tenants": {"acme": {"models": ["*"], "sealed": "required"}}}
    async with (
        meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, policy=policy) as mesh,
        mesh.channel() as channel,
    ):
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        error = await refused(stub.Generate(ask(), metadata=mesh.auth()))
        assert error.reason == "SEALED_REQUIRED"


async def test_a_method_that_is_not_there_is_refused_and_audited(running: Running) -> None:
    call = running.channel.unary_unary("/meshgate.v1.GenerationService/Nothing")
    error = await refused(call(b"", metadata=running.mesh.auth()))
    assert error.reason == "METHOD_UNKNOWN"
    assert running.mesh.record_of(error)["event"] == "refused"


async def test_garbage_is_refused(running: Running) -> None:
    call = running.channel.unary_unary("/meshgate.v1.GenerationService/Generate")
    error = await refused(call(b"\xff\xff\xff", metadata=running.mesh.auth()))
    assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")


async def test_a_service_that_is_gone_is_unavailable_and_unnamed(running: Running) -> None:
    await running.mesh.services["generation"].stop()
    error = await refused(running.generation.Generate(ask(), metadata=running.mesh.auth()))
    assert (type(error), error.reason) == (errors.Unavailable, "BACKEND_UNAVAILABLE")
    assert str(running.mesh.services["generation"].port) not in error.message


async def test_a_defect_says_nothing(running: Running) -> None:
    error = await refused(
        running.generation.CountTokens(generation_pb2.CountTokensRequest(), metadata=running.mesh.auth())
    )
    assert (type(error), error.message) == (errors.Internal, "internal error")


async def test_overload_is_relayed_with_its_time(running: Running) -> None:
    error = await refused(running.embedding.Embed(embedding_pb2.EmbedRequest(), metadata=running.mesh.auth()))
    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.retry_after) == ("OVERLOADED", 0.5)
    assert error.request_id == running.mesh.records()[-1]["request_id"]


async def sealing_key(running: Running) -> codec.PublicKey:
    listed = await running.keys.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=running.mesh.auth())
    best = listed.keys[0]
    assert best.suite == sealed_pb2.SEALING_SUITE_MLKEM768_X25519
    return codec.PublicKey(best.suite, best.public_key)


def seal(key: codec.PublicKey, method: str, message: Any, **changes: Any) -> Any:
    fields = {"tenant": "acme", "subject": "alice", "now_ms": _now(), **changes}
    return codec.seal_request(key, message.SerializeToString(), method=method, **fields)


def _now() -> int:
    return time.time_ns() // 1_000_000


async def test_a_sealed_unary_call(running: Running) -> None:
    key = await sealing_key(running)
    envelope, session = seal(key, "/meshgate.v1.GenerationService/Generate", ask("secret words"))
    reply = await running.sealed.Call(sealed_pb2.CallRequest(envelope=envelope), metadata=running.mesh.auth())
    opened = generation_pb2.GenerateResponse.FromString(session.open_response(reply.segment) or b"")
    session.close()
    assert opened.candidates[0].text == "secret words"
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (3, 5)
    ended = running.mesh.records()[-1]
    assert (ended["target"], ended["sealing_key_id"]) == ("/meshgate.v1.GenerationService/Generate", key.key_id)


async def test_a_sealed_server_stream(running: Running) -> None:
    running.application.go_on.set()
    request = generation_pb2.GenerateStreamRequest(request=ask())
    envelope, session = seal(await sealing_key(running), "/meshgate.v1.GenerationService/GenerateStream", request)
    stream = running.sealed.CallStream(metadata=running.mesh.auth())
    await stream.write(sealed_pb2.CallStreamRequest(envelope=envelope))
    await stream.done_writing()
    words = []
    async for reply in stream:
        message = session.open_response(reply.segment)
        if message is not None:
            words.append(generation_pb2.GenerateStreamResponse.FromString(message).deltas[0].text)
    session.close()
    assert words == ["a", "b", "c"]


async def test_a_sealed_bidirectional_stream(running: Running) -> None:
    first = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["one"]))
    envelope, session = seal(await sealing_key(running), "/meshgate.v1.EmbeddingService/EmbedStream", first)
    stream = running.sealed.CallStream(metadata=running.mesh.auth())
    await stream.write(sealed_pb2.CallStreamRequest(envelope=envelope))
    second = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["three"]))
    for segment in (session.seal_request(second.SerializeToString()), session.seal_request(None, last=True)):
        await stream.write(sealed_pb2.CallStreamRequest(segment=segment))
    await stream.done_writing()
    opened = [session.open_response(reply.segment) async for reply in stream]
    session.close()
    replies = [embedding_pb2.EmbedStreamResponse.FromString(message) for message in opened if message is not None]
    assert [reply.response.embeddings[0].tokens for reply in replies] == [3, 5]


async def test_a_sealed_stream_that_is_cut_is_refused(running: Running) -> None:
    first = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["one"]))
    envelope, _ = seal(await sealing_key(running), "/meshgate.v1.EmbeddingService/EmbedStream", first)
    stream = running.sealed.CallStream(metadata=running.mesh.auth())
    await stream.write(sealed_pb2.CallStreamRequest(envelope=envelope))
    await stream.done_writing()  # without the last segment
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stream:
            pass
    assert status.from_rpc_error(caught.value).reason == "SEAL_INVALID"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject": "bob"}, "SEAL_INVALID"),
        ({"tenant": "evil"}, "SEAL_INVALID"),
        ({"now_ms": 1}, "SEAL_EXPIRED"),
        ({"model": "beta"}, "INVALID_ARGUMENT"),
        ({"recipient": sealed_pb2.SEALING_RECIPIENT_UNSPECIFIED}, "INVALID_ARGUMENT"),
    ],
)
async def test_an_envelope_for_another_purpose_does_not_open(
    running: Running, changes: dict[str, Any], reason: str
) -> None:
    envelope, _ = seal(await sealing_key(running), "/meshgate.v1.GenerationService/Generate", ask(), **changes)
    error = await refused(running.sealed.Call(sealed_pb2.CallRequest(envelope=envelope), metadata=running.mesh.auth()))
    assert error.reason == reason
    assert running.mesh.record_of(error)["event"] == "refused"


async def test_an_envelope_is_used_once(running: Running) -> None:
    envelope, _ = seal(await sealing_key(running), "/meshgate.v1.GenerationService/Generate", ask())
    request = sealed_pb2.CallRequest(envelope=envelope)
    await running.sealed.Call(request, metadata=running.mesh.auth())
    error = await refused(running.sealed.Call(request, metadata=running.mesh.auth()))
    assert error.reason == "SEAL_REPLAYED"


async def test_a_flipped_byte_does_not_open(running: Running) -> None:
    envelope, _ = seal(await sealing_key(running), "/meshgate.v1.GenerationService/Generate", ask())
    flipped = bytearray(envelope.ciphertext)
    flipped[-1] ^= 1
    broken = sealed_pb2.Envelope(header=envelope.header, ciphertext=bytes(flipped))
    error = await refused(running.sealed.Call(sealed_pb2.CallRequest(envelope=broken), metadata=running.mesh.auth()))
    assert error.reason == "SEAL_INVALID"
    assert running.mesh.record_of(error)["reason"] == "SEAL_INVALID"
