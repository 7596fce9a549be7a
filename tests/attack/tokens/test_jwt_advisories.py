"""Every way in which PyJWT, or what is like it, is known to have believed what it should not.

The library has mended each; the tests hold the gateway to it whatever its version, since most are ruled out by how it
is used: PyJWS alone, one algorithm at a time, keys from configuration, claims checked here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.authentication import Authenticator, IssuerConfig
from meshgate.errors import Unauthenticated
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    return tokens.authenticator(path, Clock())


def refusal(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        authenticator.authenticate(f"Bearer {token}")
    return caught.value.reason


def encodings(key: Any) -> list[bytes]:
    """A public key in every form in which it was once taken for a secret."""
    public = key.public_key()
    forms = [
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.OpenSSH, PublicFormat.OpenSSH),
    ]
    if key is tokens.RSA_KEY:
        forms += [(Encoding.PEM, PublicFormat.PKCS1), (Encoding.DER, PublicFormat.PKCS1)]
    if key is tokens.EC_KEY:
        forms += [(Encoding.X962, PublicFormat.UncompressedPoint), (Encoding.X962, PublicFormat.CompressedPoint)]
    if key is tokens.ED_KEY:
        forms += [(Encoding.Raw, PublicFormat.Raw)]
    return [public.public_bytes(*form) for form in forms] + [json.dumps(tokens.jwk(key)).encode()]


@pytest.mark.parametrize("kid", ["ec", "ed", "rsa"])
@pytest.mark.parametrize(("algorithm", "hashed"), [("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")])
def test_a_public_key_in_any_form_as_a_secret(
    authenticator: Authenticator, kid: str, algorithm: str, hashed: str
) -> None:
    """CVE-2017-11424 (PEM), CVE-2022-29217 (OpenSSH), CVE-2026-48526 (JWK)."""
    header = tokens.encode(json.dumps({"alg": algorithm, "kid": kid}).encode())
    text = f"{header}.{tokens.encode(json.dumps(tokens.claims()).encode())}"
    for secret in encodings(tokens.KEYS[kid]):
        mac = hmac.new(secret, text.encode(), hashlib.new(hashed).name).digest()
        assert refusal(authenticator, f"{text}.{tokens.encode(mac)}") == "TOKEN_ALGORITHM"


def test_a_secret_in_the_key_set_is_no_key(tmp_path: Path) -> None:
    """RFC 8725, section 2.1: an `oct` key that is published is a secret no more."""
    path = tmp_path / "jwks.json"
    secret = {"kty": "oct", "k": tokens.encode(bytes(32)), "kid": "secret", "alg": "HS256"}
    tokens.publish(path, [secret, tokens.jwk(tokens.EC_KEY, kid="ec")])
    header = tokens.encode(json.dumps({"alg": "HS256", "kid": "secret"}).encode())
    text = f"{header}.{tokens.encode(json.dumps(tokens.claims()).encode())}"
    mac = hmac.new(bytes(32), text.encode(), "sha256").digest()
    assert refusal(tokens.authenticator(path, Clock()), f"{text}.{tokens.encode(mac)}") == "TOKEN_ALGORITHM"
    token = tokens.token(header={"kid": "secret"})
    assert refusal(tokens.authenticator(path, Clock()), token) == "TOKEN_KEY_UNKNOWN"


@pytest.mark.parametrize("issuer", ["https://issuer", "https", "", "issuer.test", "t", "https://issuer.test.evil"])
def test_a_part_of_the_issuers_name_is_not_the_issuer(authenticator: Authenticator, issuer: str) -> None:
    """CVE-2024-53861."""
    assert refusal(authenticator, tokens.token(iss=issuer)) == "TOKEN_ISSUER"


@pytest.mark.parametrize("audience", ["mesh", "m", "", "meshgate2", "MESHGATE", ["mesh", "gate"], [["meshgate"]]])
def test_a_part_of_the_audiences_name_is_not_the_audience(authenticator: Authenticator, audience: Any) -> None:
    assert refusal(authenticator, tokens.token(aud=audience)) == "TOKEN_AUDIENCE"


@pytest.mark.parametrize("crit", [["x-meshgate"], ["exp"], ["alg"], [], None, "b64", {"b64": 1}, [1], ["b64", "b64"]])
def test_an_extension_that_must_be_understood(authenticator: Authenticator, crit: Any) -> None:
    """CVE-2026-32597: properly signed, and refused all the same."""
    header = {"alg": "ES256", "kid": "ec", "crit": crit, "x-meshgate": 1, "b64": True}
    token = tokens.sign(header, json.dumps(tokens.claims()).encode())
    assert refusal(authenticator, token) == "TOKEN_MALFORMED"


def test_a_detached_payload_is_no_payload(authenticator: Authenticator) -> None:
    header, _, signature = tokens.token().split(".")
    assert refusal(authenticator, f"{header}..{signature}") == "TOKEN_MALFORMED"


@pytest.mark.parametrize("junk", ["!!!!", "****", "\t\t\t\t", "====", "%3D%3D"])
def test_a_signature_with_letters_of_no_alphabet(authenticator: Authenticator, junk: str) -> None:
    """GHSA-hxm8-2xgr-2p9m: what is not base64url was passed over."""
    token = tokens.token()
    assert refusal(authenticator, token + junk) == "TOKEN_MALFORMED"
    assert refusal(authenticator, token[:-8] + junk + token[-8:]) == "TOKEN_MALFORMED"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_of_any_length_costs_no_decoding(
    authenticator: Authenticator, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2026-48525: base64url of unbounded length was decoded before anything else."""
    monkeypatch.setattr("gateway.authentication.header.urlsafe_b64decode", None)
    parts = tokens.token().split(".")
    parts[part] = "A" * 10_000_000
    assert refusal(authenticator, ".".join(parts)) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "header", [{"jku": "https://evil.test/keys"}, {"x5u": "http://127.0.0.1/x"}, {"jku": "file:///x"}]
)
def test_nothing_in_a_token_makes_the_gateway_connect(
    authenticator: Authenticator, header: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2018-0114 and its kin; CVE-2026-48522, where the place of keys could be anything but the web."""
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert refusal(authenticator, tokens.token(header=header)) == "TOKEN_MALFORMED"
    assert refusal(authenticator, tokens.token(header={"kid": "https://evil.test/keys"})) == "TOKEN_KEY_UNKNOWN"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://id.test/k", "http://id.test/k", "data:,{}", "HTTP://id.test"]
)
def test_keys_come_over_https_alone(url: str) -> None:
    """CVE-2026-48522."""
    with pytest.raises(ValueError, match="jwks_url"):
        IssuerConfig(issuer="i", audience="a", jwks_url=url)


def test_an_embedded_key_signs_for_nobody(authenticator: Authenticator) -> None:
    """CVE-2018-0114: a token that brings its key along."""
    own = tokens.jwk(tokens.OTHER_EC_KEY, kid="ec")
    assert refusal(authenticator, tokens.token(tokens.OTHER_EC_KEY, header={"jwk": own})) == "TOKEN_MALFORMED"


def test_an_issuer_names_its_own_tenants_alone(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    authenticator = tokens.authenticator(path, Clock(), tenants=["acme", "globex"])
    assert authenticator.authenticate(f"Bearer {tokens.token()}").tenant == "acme"
    for tenant in ("initech", "ACME", "acme2", "acm"):
        assert refusal(authenticator, tokens.token(tenant=tenant)) == "TOKEN_TENANT"


@pytest.mark.parametrize("tenants", [[], ["*"], ["a b"], [""], ["x" * 129], ["acme\n"]])
def test_tenants_that_no_token_can_name_stop_the_start(tenants: list[str]) -> None:
    with pytest.raises(ValueError, match="tenants"):
        IssuerConfig.model_validate({"issuer": "i", "audience": "a", "jwks": "k", "tenants": tenants})


def test_two_entries_that_say_the_same_of_different_keys_stop_the_start(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    entry = IssuerConfig(issuer="i", audience="a", jwks=path)
    with pytest.raises(Exception, match="has the issuer and audience of"):
        Authenticator([entry, entry.model_copy(update={"algorithms": ("EdDSA",)})])
