"""The SDK against the real gateway over TLS: generated stubs unchanged, blocking and asyncio, plain and sealed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.client import aio, blocking
from meshgate.client.failure import explain
from meshgate.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    sealed_pb2,
    sealed_pb2_grpc,
)
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

both = pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])


class Running:
    def __init__(self, mesh: Mesh, application: ScriptedApplication) -> None:
        self.mesh = mesh
        self.application = application

    def given(self, **changes: Any) -> dict[str, Any]:
        """What to connect with."""
        return {"target": self.mesh.target, "ca": self.mesh.ca, "token": self.mesh.token(), **changes}

    def targets(self) -> list[tuple[str, str]]:
        """The method on the wire and the one inside, of each call that ended."""
        return [(r["method"], r.get("target", r["method"])) for r in self.mesh.records() if r["event"] == "ended"]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    application = ScriptedApplication()
    application.go_on.set()
    async with meshes.mesh(tmp_path, {"generation": application, "embedding": application}) as mesh:
        yield Running(mesh, application)


def ask(prompt: str = "a b c", model: str = "") -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(prompt=prompt, model=model)


def streamed(prompt: str = "a b c", model: str = "") -> generation_pb2.GenerateStreamRequest:
    return generation_pb2.GenerateStreamRequest(request=ask(prompt, model))


def texts(*found: str) -> Iterator[embedding_pb2.EmbedStreamRequest]:
    for text in found:
        yield embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=[text]))


def words(replies: list[Any]) -> list[str]:
    return [reply.deltas[0].text for reply in replies]


def counts(replies: list[Any]) -> list[int]:
    return [reply.response.embeddings[0].tokens for reply in replies]


async def in_thread(work: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        return await asyncio.to_thread(work)


@both
async def test_blocking_stubs(running: Running, sealed: bool) -> None:
    def work() -> None:
        with blocking.connect(**running.given(sealed=sealed)) as channel:
            generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            assert generation.Generate(ask("secret"), timeout=20).candidates[0].text == "secret"
            reply, call = generation.Generate.with_call(ask("x", "first"), timeout=20)
            assert (reply.candidates[0].text, call.code()) == ("x", grpc.StatusCode.OK)
            future = generation.Generate.future(ask("later"), timeout=20)
            assert future.result(20).candidates[0].text == "later"
            assert (future.result().candidates[0].text, future.exception(), future.done()) == ("later", None, True)
            stream = generation.GenerateStream(streamed(model="alpha"), timeout=20)
            assert words(list(stream)) == ["a", "b", "c"]
            assert stream.code() == grpc.StatusCode.OK
            assert counts(list(embedding.EmbedStream(texts("one", "three"), timeout=20))) == [3, 5]
            models: Any = models_pb2_grpc.ModelServiceStub(channel)
            assert models.ListModels(models_pb2.ListModelsRequest()).models[0].name == "alpha"

    await in_thread(work)
    wires = {wire.rpartition("/")[0] for wire, target in running.targets() if "Generate" in target}
    assert wires == {"/meshgate.v1.SealedService" if sealed else "/meshgate.v1.GenerationService"}


@both
async def test_asyncio_stubs(running: Running, sealed: bool) -> None:
    async with aio.connect(**running.given(sealed=sealed)) as channel, asyncio.timeout(60):
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        call = generation.Generate(ask("secret"), timeout=20)
        assert (await call).candidates[0].text == "secret"
        assert (await call.code(), call.done(), call.cancelled()) == (grpc.StatusCode.OK, True, False)
        stream = generation.GenerateStream(streamed(model="alpha"), timeout=20)
        assert words([reply async for reply in stream]) == ["a", "b", "c"]
        assert await stream.code() == grpc.StatusCode.OK
        given = embedding.EmbedStream(texts("one", "three"), timeout=20)
        assert counts([reply async for reply in given]) == [3, 5]
        models: Any = models_pb2_grpc.ModelServiceStub(channel)
        assert (await models.ListModels(models_pb2.ListModelsRequest())).models[0].name == "alpha"


@both
async def test_asyncio_reading_and_writing_in_turn(running: Running, sealed: bool) -> None:
    async with aio.connect(**running.given(sealed=sealed)) as channel, asyncio.timeout(60):
        embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stream = embedding.EmbedStream(timeout=20)
        for text in ("one", "three"):
            await stream.write(next(texts(text)))
            assert counts([await stream.read()]) == [len(text)]
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() == grpc.StatusCode.OK


@both
async def test_a_departed_asyncio_caller_ends_the_work(running: Running, sealed: bool) -> None:
    running.application.go_on.clear()
    async with aio.connect(**running.given(sealed=sealed)) as channel, asyncio.timeout(30):
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        stream = generation.GenerateStream(streamed())
        assert words([await stream.read()]) == ["a"]
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.read()
        assert await stream.code() == grpc.StatusCode.CANCELLED
        await running.application.abandoned.wait()


@both
async def test_a_departed_blocking_caller_ends_the_work(running: Running, sealed: bool) -> None:
    running.application.go_on.clear()

    def work() -> None:
        with blocking.connect(**running.given(sealed=sealed)) as channel:
            generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            stream = generation.GenerateStream(streamed(), timeout=30)
            assert words([next(stream)]) == ["a"]
            stream.cancel()
            with pytest.raises(grpc.RpcError):
                next(stream)
            assert stream.code() == grpc.StatusCode.CANCELLED

    await in_thread(work)
    async with asyncio.timeout(10):
        await running.application.abandoned.wait()


@both
async def test_a_deadline_holds(running: Running, sealed: bool) -> None:
    running.application.go_on.clear()
    async with aio.connect(**running.given(sealed=sealed)) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        stream = generation.GenerateStream(streamed(), timeout=1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@both
async def test_an_error_is_explained(running: Running, sealed: bool) -> None:
    token = running.mesh.token(scopes=["embed"])
    async with aio.connect(**running.given(token=token, sealed=sealed)) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generation.Generate(ask())
        error = explain(caught.value)
        assert (type(error), error.reason) == (errors.PermissionDenied, "SCOPE_MISSING")
        assert running.mesh.record_of(error)["event"] == "refused"


@both
async def test_a_bad_token_is_the_gateways_to_refuse(running: Running, sealed: bool) -> None:
    token = running.mesh.token()
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[::-1]}"
    async with aio.connect(**running.given(token=forged, sealed=sealed)) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generation.Generate(ask())
        assert isinstance(explain(caught.value), errors.Unauthenticated)


@both
async def test_no_token_to_be_had_is_an_error_of_the_call(running: Running, sealed: bool) -> None:
    def broken() -> str:
        raise RuntimeError("s3cret")

    def work() -> None:
        with blocking.connect(**running.given(token=broken, sealed=sealed)) as channel:
            generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                generation.Generate(ask())
            assert explain(caught.value).reason == "TOKEN_UNAVAILABLE"

    await in_thread(work)
    async with aio.connect(**running.given(token=broken, sealed=sealed)) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        call = generation.Generate(ask())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert explain(caught.value).reason == "TOKEN_UNAVAILABLE"
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED


@both
async def test_a_call_may_bring_its_own_token(running: Running, sealed: bool) -> None:
    own = running.mesh.auth(running.mesh.token(tenant="other", subject="bob"))
    async with aio.connect(**running.given(sealed=sealed)) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        await generation.Generate(ask(), metadata=own)
    assert running.application.metadata["x-meshgate-tenant"] == "other"


async def test_a_token_file_that_changes_is_read_again(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(running.mesh.token(subject="first"))
    async with aio.connect(**running.given(token=path, sealed=True)) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        await generation.Generate(ask())
        path.write_text(running.mesh.token(subject="the second"))
        await generation.Generate(ask())
    ended = [record for record in running.mesh.records() if record["event"] == "ended"]
    seen = [record["subject"] for record in ended if record["method"] == "/meshgate.v1.SealedService/Call"]
    assert seen == ["first", "the second"]


async def test_only_pinned_keys_are_sealed_to(running: Running) -> None:
    async with running.mesh.channel() as plain:
        listing: Any = sealed_pb2_grpc.KeyServiceStub(plain)
        keys = (await listing.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=running.mesh.auth())).keys
    second = keys[1].fingerprint.hex()
    async with aio.connect(**running.given(sealed=True, pinned_fingerprints=[second])) as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        await generation.Generate(ask())
    assert running.mesh.records()[-1]["sealing_key_id"] == keys[1].key_id
    async with aio.connect(**running.given(sealed=True, pinned_fingerprints=["00" * 32])) as channel:
        generation = generation_pb2_grpc.GenerationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generation.Generate(ask())
        assert explain(caught.value).reason == "SEALING_KEY_NOT_PINNED"


async def test_a_method_without_a_sealed_form_does_not_go_in_the_clear(running: Running) -> None:
    async with aio.connect(**running.given(sealed=True)) as channel:
        with pytest.raises(errors.Unimplemented):
            channel.stream_unary("/meshgate.v1.EmbeddingService/Embed", None, None)
    with blocking.connect(**running.given(sealed=True)) as other, pytest.raises(errors.Unimplemented):
        other.stream_unary("/meshgate.v1.EmbeddingService/Embed", None, None)


async def test_no_requests_are_the_same_error_sealed_as_in_the_clear(running: Running) -> None:
    found = []
    for sealed in (False, True):
        async with aio.connect(**running.given(sealed=sealed)) as channel, asyncio.timeout(30):
            embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in embedding.EmbedStream(texts(), timeout=20):
                    pass
            found.append(explain(caught.value).reason)
    assert found == ["MALFORMED", "MALFORMED"]


async def test_many_sealed_calls_at_once_list_the_keys_once(running: Running) -> None:
    async with aio.connect(**running.given(sealed=True)) as channel, asyncio.timeout(60):
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        replies = await asyncio.gather(*(generation.Generate(ask(str(number))) for number in range(50)))
    assert [reply.candidates[0].text for reply in replies] == [str(number) for number in range(50)]
    assert [target for _, target in running.targets()].count("/meshgate.v1.KeyService/ListSealingKeys") == 1
