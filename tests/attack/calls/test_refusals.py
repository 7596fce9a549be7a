"""Every refusal over the wire: its code, its reason, its request id, and the audit record that tells of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.commands import dev_issuer
from meshgate import errors
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh, refused


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    policy = {"tenants": {"acme": {"models": ["alpha"]}, "poor": {"models": []}}}
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, policy=policy) as made:
        yield made


def key(mesh: Mesh) -> Any:
    return serialization.load_pem_private_key((mesh.home / "keys" / "issuer-key.pem").read_bytes(), None)


def kid(mesh: Mesh) -> str:
    return str(json.loads((mesh.home / "keys" / "jwks.json").read_text())["keys"][0]["kid"])


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    usual = {
        "iss": dev_issuer.ISSUER,
        "aud": dev_issuer.AUDIENCE,
        "sub": "alice",
        "tenant": "acme",
        "scope": "generate",
        "iat": now,
        "exp": now + 600,
    }
    return {**usual, **changes}


def signed(mesh: Mesh, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key(mesh), algorithm="ES256", headers={"kid": kid(mesh)})


def public_pem(mesh: Mesh) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key(mesh).public_key().public_bytes(encoding, form))


def hmac_with_public_key(mesh: Mesh) -> str:
    """What a library that takes the algorithm from the token would accept (RFC 8725 section 2.1)."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(json.dumps({"alg": "HS256", "kid": kid(mesh), "typ": "JWT"}).encode())
    body = head + b"." + part(json.dumps(claims()).encode())
    return (body + b"." + part(hmac.digest(public_pem(mesh), body, hashlib.sha256))).decode()


TOKENS: dict[str, tuple[Callable[[Mesh], str | None], str]] = {
    "no token": (lambda mesh: None, "TOKEN_MISSING"),
    "expired": (lambda mesh: signed(mesh, exp=int(time.time()) - 60), "TOKEN_EXPIRED"),
    "wrong audience": (lambda mesh: signed(mesh, aud="other"), "TOKEN_AUDIENCE"),
    "wrong issuer": (lambda mesh: signed(mesh, iss="https://evil.example"), "TOKEN_ISSUER"),
    "alg none": (
        lambda mesh: jwt.encode(claims(), "", algorithm="none", headers={"kid": kid(mesh)}),
        "TOKEN_MALFORMED",
    ),
    "alg none with a signature": (
        lambda mesh: jwt.encode(claims(), "", algorithm="none", headers={"kid": kid(mesh)}) + "e30",
        "TOKEN_ALGORITHM",
    ),
    "hs256 with the public key": (hmac_with_public_key, "TOKEN_ALGORITHM"),
    "unknown kid": (
        lambda mesh: jwt.encode(claims(), key(mesh), algorithm="ES256", headers={"kid": "nobody"}),
        "TOKEN_KEY_UNKNOWN",
    ),
    "another's key": (
        lambda mesh: jwt.encode(
            claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": kid(mesh)}
        ),
        "TOKEN_SIGNATURE",
    ),
}


async def ask(mesh: Mesh, token: str | None, **fields: Any) -> errors.MeshError:
    request = generation_pb2.GenerateRequest(**{"prompt": "hello", **fields})
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        return await refused(stub.Generate(request, metadata=metadata))


def check_recorded(mesh: Mesh, error: errors.MeshError) -> None:
    record = mesh.record_of(error)
    assert (record["event"], record["decision"], record["reason"]) == ("refused", "deny", error.reason)


@pytest.mark.parametrize("case", TOKENS)
async def test_a_token_that_proves_nothing(mesh: Mesh, case: str) -> None:
    make, reason = TOKENS[case]
    error = await ask(mesh, make(mesh))
    assert (type(error), error.reason) == (errors.Unauthenticated, reason)
    check_recorded(mesh, error)


async def test_a_scope_that_is_missing(mesh: Mesh) -> None:
    error = await ask(mesh, mesh.token(scopes=("embed",)))
    assert (type(error), error.reason) == (errors.PermissionDenied, "SCOPE_MISSING")
    check_recorded(mesh, error)


@pytest.mark.parametrize(("tenant", "model"), [("acme", "beta"), ("acme", "absent"), ("poor", ""), ("other", "")])
async def test_a_model_that_is_not_allowed(mesh: Mesh, tenant: str, model: str) -> None:
    error = await ask(mesh, mesh.token(tenant=tenant), model=model)
    assert (type(error), error.reason) == (errors.PermissionDenied, "MODEL_NOT_ALLOWED")
    check_recorded(mesh, error)


async def test_a_prompt_of_ten_megabytes(mesh: Mesh) -> None:
    error = await ask(mesh, mesh.token(), prompt="x" * 10_000_000)
    assert (type(error), error.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")
    check_recorded(mesh, error)


async def test_a_prompt_that_grpc_itself_refuses(mesh: Mesh) -> None:
    error = await ask(mesh, mesh.token(), prompt="x" * 20_000_000)
    assert (type(error), error.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")


async def test_a_model_name_that_is_too_long(mesh: Mesh) -> None:
    error = await ask(mesh, mesh.token(), model="m" * 257)
    assert isinstance(error, errors.InvalidArgument)
    assert error.violations[0].field == "model"
    check_recorded(mesh, error)


async def test_two_tokens_are_none(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt="hello")
        error = await refused(stub.Generate(request, metadata=(*mesh.auth(), *mesh.auth())))
    assert error.reason == "TOKEN_MISSING"


async def test_no_refusal_holds_a_token_or_a_path(mesh: Mesh) -> None:
    for make, _ in TOKENS.values():
        token = make(mesh)
        error = await ask(mesh, token)
        written = (mesh.home / "audit").rglob("*")
        everything = error.message + "".join(path.read_text() for path in written if path.is_file())
        assert token is None or token not in everything
        assert str(mesh.home) not in error.message
