"""Identity through the whole gateway: keys by URL, tokens revoked meanwhile, tokens bound to a certificate."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.app import Gateway
from gateway.authentication import thumbprint
from gateway.commands import dev_issuer
from gateway.forwarding import message_relay
from meshgate import errors
from meshgate.rpc import status
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures import tokens
from tests.support.fixtures.revocation_reads import Looks
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import jwks_server
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

ASK = generation_pb2.GenerateRequest(prompt="a b c")


@asynccontextmanager
async def running(home: Path, **changes: Any) -> AsyncIterator[Mesh]:
    async with meshes.mesh(home, {"generation": ScriptedApplication()}, **changes) as mesh:
        yield mesh


async def outcome(channel: Any, token: str) -> str:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    try:
        await stub.Generate(ASK, metadata=(("authorization", f"Bearer {token}"),), timeout=20)
    except grpc.aio.AioRpcError as error:
        found: errors.MeshError = status.from_rpc_error(error)
        return found.reason
    return "served"


async def until(channel: Any, token: str, wanted: str) -> None:
    """Waits until calls with the token end so."""
    async with asyncio.timeout(20):
        while await outcome(channel, token) != wanted:  # noqa: ASYNC110 - it is another side's doing
            await asyncio.sleep(0.02)


def list_of(home: Path, *entries: dict[str, Any]) -> Path:
    path = home / "revoked.json"
    path.write_text(json.dumps({"revoked": entries}))
    return path


async def test_a_token_in_use_is_revoked_within_a_second_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, looks = list_of(tmp_path), Looks(monkeypatch)
    async with running(tmp_path, revocation={"file": path}) as mesh, mesh.channel() as channel:
        alice, bob = mesh.token(), mesh.token(subject="bob")
        assert await outcome(channel, alice) == await outcome(channel, bob) == "served"
        list_of(tmp_path, {"issuer": dev_issuer.ISSUER, "subject": "alice"})
        await looks.another()
        assert await outcome(channel, alice) == "TOKEN_REVOKED"
        assert await outcome(channel, bob) == "served"
        refused = [record for record in mesh.records() if record.get("reason") == "TOKEN_REVOKED"]
        assert refused[0]["status"] == "UNAUTHENTICATED"


async def test_a_stream_under_way_ends_when_its_token_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_relay, "_LOOK_SECONDS", 0)
    path, application = list_of(tmp_path), ScriptedApplication()
    section = {"revocation": {"file": path}}
    async with meshes.mesh(tmp_path, {"generation": application}, **section) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        asked = generation_pb2.GenerateStreamRequest(request=ASK)
        alice, bob = (
            stub.GenerateStream(asked, metadata=mesh.auth(mesh.token(subject=who))) for who in ("alice", "bob")
        )
        assert (await alice.read()).deltas and (await bob.read()).deltas
        list_of(tmp_path, {"issuer": dev_issuer.ISSUER, "subject": "alice"})
        await until(channel, mesh.token(), "TOKEN_REVOKED")
        application.go_on.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await alice.read()
        assert status.from_rpc_error(caught.value).reason == "TOKEN_REVOKED"
        assert (await bob.read()).deltas


async def test_with_deny_a_lost_list_closes_the_door_and_a_found_one_opens_it(tmp_path: Path) -> None:
    path = list_of(tmp_path)
    section = {"file": path, "on_outage": "deny", "outage_seconds": 1}
    async with running(tmp_path, revocation=section) as mesh, mesh.channel() as channel:
        token = mesh.token()
        await until(channel, token, "served")
        await asyncio.to_thread(path.unlink)
        await until(channel, token, "REVOCATIONS_UNAVAILABLE")
        list_of(tmp_path)
        await until(channel, token, "served")


async def test_keys_by_url_reach_the_door_when_they_change(tmp_path: Path) -> None:
    async with jwks_server.jwks_server(tmp_path) as server:
        server.answer = jwks_server.ok([tokens.jwk(tokens.EC_KEY, kid="ec")])
        entry = {
            "issuer": tokens.ISSUER,
            "audience": tokens.AUDIENCE,
            "jwks_url": server.url,
            "jwks_ca": server.ca,
            "jwks_refresh_seconds": 1,
        }
        ours = {"issuer": dev_issuer.ISSUER, "audience": dev_issuer.AUDIENCE, "jwks": tmp_path / "keys" / "jwks.json"}
        now = int(time.time())
        old = tokens.token(iat=now, exp=now + 600)
        new = tokens.token(tokens.OTHER_EC_KEY, header={"kid": "new"}, iat=now, exp=now + 600)
        async with running(tmp_path, issuers=[ours, entry]) as mesh, mesh.channel() as channel:
            assert await outcome(channel, old) == "served"
            assert await outcome(channel, new) == "TOKEN_KEY_UNKNOWN"
            server.answer = jwks_server.ok([tokens.jwk(tokens.OTHER_EC_KEY, kid="new")])
            await until(channel, new, "served")
            assert await outcome(channel, old) == "TOKEN_KEY_UNKNOWN"


def as_client(mesh: Mesh, name: str) -> Any:
    """A channel with the certificate of `name`."""
    folder = mesh.home / "certs"
    key, certificate = (folder / f"{name}-key.pem").read_bytes(), (folder / f"{name}.pem").read_bytes()
    return grpc.aio.secure_channel(mesh.target, grpc.ssl_channel_credentials(mesh.ca, key, certificate))


@pytest.fixture
async def mutual(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh whose gateway asks callers for certificates."""
    meshes.prepare(tmp_path)
    edge = {"listen": "127.0.0.1:0", "tls": meshes.identity(tmp_path, "gateway").model_dump(), "drain_seconds": 1}
    jwks = tmp_path / "bound.json"
    tokens.publish(jwks, [tokens.jwk(tokens.EC_KEY, kid="ec")])
    entry = {"issuer": tokens.ISSUER, "audience": tokens.AUDIENCE, "jwks": jwks}
    application = ScriptedApplication()
    async with meshes.serving(tmp_path, "generation", application) as service:
        config = meshes.gateway_config(tmp_path, {"generation": service.port}, server=edge, issuers=[entry])
        made = Gateway(config)
        await made.start()
        yield Mesh(tmp_path, made, {"generation": service})
        await made.stop()


async def test_a_bound_token_is_good_with_its_certificate_alone(mutual: Mesh) -> None:
    """RFC 8705, over a connection that proves its certificate."""
    bond = thumbprint((mutual.home / "certs" / "stranger.pem").read_bytes())
    now = int(time.time())
    bound = tokens.token(iat=now, exp=now + 600, cnf={"x5t#S256": bond})
    free = tokens.token(iat=now, exp=now + 600)
    async with as_client(mutual, "stranger") as owner, as_client(mutual, "gateway") as thief:
        await until(owner, free, "served")
        assert await outcome(owner, bound) == "served"
        assert await outcome(thief, bound) == "TOKEN_BINDING"
        assert await outcome(owner, bound) == "served"
        assert await outcome(thief, free) == "served"
