"""The development issuer: a key made once, owner-only, whose tokens the gateway believes."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.authentication import Authenticator, IssuerConfig
from gateway.commands import dev_issuer
from meshgate.errors import Unauthenticated
from meshgate.runtime.config import ConfigError


def authenticator(home: Path) -> Authenticator:
    entry = IssuerConfig(issuer=dev_issuer.ISSUER, audience=dev_issuer.AUDIENCE, jwks=home / "keys" / "jwks.json")
    return Authenticator([entry])


def mint(home: Path, ttl: int = 60) -> str:
    dev_issuer.ensure_key(home)
    return dev_issuer.mint(home, tenant="acme", subject="bob", scopes=["generate", "embed"], ttl=ttl)


def test_its_tokens_are_believed(tmp_path: Path) -> None:
    token = mint(tmp_path)
    principal = authenticator(tmp_path).authenticate(f"Bearer {token}")
    assert (principal.tenant, principal.subject, principal.scopes) == ("acme", "bob", frozenset({"generate", "embed"}))
    assert 55 < principal.expires_at - time.time() <= 60


def test_its_tokens_end(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticator_after(tmp_path, mint(tmp_path, ttl=1))
    assert caught.value.reason == "TOKEN_EXPIRED"


def authenticator_after(home: Path, token: str) -> None:
    entry = IssuerConfig(issuer=dev_issuer.ISSUER, audience=dev_issuer.AUDIENCE, jwks=home / "keys" / "jwks.json")
    Authenticator([entry], lambda: time.time() + 60).authenticate(f"Bearer {token}")


def test_the_key_is_the_owners_and_never_made_twice(tmp_path: Path) -> None:
    dev_issuer.ensure_key(tmp_path)
    path = tmp_path / "keys" / "issuer-key.pem"
    first = path.read_bytes()
    dev_issuer.ensure_key(tmp_path)
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["issuer-key.pem", "jwks.json"]


def test_the_published_key_has_no_private_part(tmp_path: Path) -> None:
    dev_issuer.ensure_key(tmp_path)
    (key,) = json.loads((tmp_path / "keys" / "jwks.json").read_bytes())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "alg", "use", "kid"}


def test_a_key_set_that_is_gone_or_of_another_key_is_written_anew(tmp_path: Path) -> None:
    dev_issuer.ensure_key(tmp_path)
    path = tmp_path / "keys" / "jwks.json"
    good = path.read_bytes()
    for bad in (b'{"keys": []}', b"{", b"[]", b""):
        path.write_bytes(bad)
        dev_issuer.ensure_key(tmp_path)
        assert path.read_bytes() == good


def test_a_key_is_named_by_its_thumbprint(tmp_path: Path) -> None:
    dev_issuer.ensure_key(tmp_path)
    (key,) = json.loads((tmp_path / "keys" / "jwks.json").read_bytes())["keys"]
    members = f'{{"crv":"P-256","kty":"EC","x":"{key["x"]}","y":"{key["y"]}"}}'
    digest = hashlib.sha256(members.encode()).digest()
    assert base64.urlsafe_b64decode(key["kid"] + "=") == digest


FOREIGN = {
    "junk": b"not a key",
    "empty": b"",
    "another curve": ec.generate_private_key(ec.SECP384R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "another kind": ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "encrypted": ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    ),
}


@pytest.mark.parametrize("pem", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_key_file_is_an_error(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "issuer-key.pem").write_bytes(pem)
    with pytest.raises(ConfigError, match=r"keys/issuer-key.pem: not a P-256 private key in PEM"):
        dev_issuer.ensure_key(tmp_path)
    with pytest.raises(ConfigError, match=r"keys/issuer-key.pem: not a P-256 private key in PEM"):
        dev_issuer.development_token(tmp_path)


def test_minting_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{tmp_path}/keys/issuer-key.pem: no such file; .* --home or MESHGATE_HOME"):
        dev_issuer.development_token(tmp_path)
    assert list(tmp_path.iterdir()) == []
