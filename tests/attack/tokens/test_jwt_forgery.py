"""Forged tokens: signatures by nobody, by the wrong key, by a public key taken for a secret."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.authentication import Authenticator
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


def hs256(secret: bytes, kid: str) -> str:
    """A token with an HMAC, made by hand since libraries refuse to."""
    header = tokens.encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
    signing_input = f"{header}.{tokens.encode(json.dumps(tokens.claims()).encode())}"
    mac = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{tokens.encode(mac)}"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", [b"", b"\x00", b"\x00" * 64])
def test_no_signature_at_all(authenticator: Authenticator, algorithm: str, signature: bytes) -> None:
    token = tokens.assemble({"alg": algorithm, "typ": "JWT", "kid": "ec"}, tokens.claims(), signature)
    assert refusal(authenticator, token) in {"TOKEN_ALGORITHM", "TOKEN_MALFORMED"}


@pytest.mark.parametrize("kid", ["ec", "ed", "rsa"])
def test_hmac_with_the_public_key_as_secret(authenticator: Authenticator, kid: str) -> None:
    key = tokens.KEYS[kid]
    public = tokens.pem(key)
    for secret in (
        public,
        public.strip(),
        json.dumps(tokens.jwk(key)).encode(),
        json.dumps(tokens.jwk(key, kid=kid)).encode(),
    ):
        assert refusal(authenticator, hs256(secret, kid)) == "TOKEN_ALGORITHM"


def test_hmac_cannot_even_be_configured(tmp_path: Path) -> None:
    for algorithm in ("HS256", "none", "ES256K", "ES384"):
        with pytest.raises(ValueError, match="algorithms"):
            tokens.authenticator(tmp_path / "jwks.json", Clock(), algorithms=[algorithm])


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        (tokens.P384_KEY, "ES384", "p384"),
        (tokens.RSA_KEY, "RS512", "rsa"),
        (tokens.RSA_KEY, "PS384", "rsa"),
        (tokens.EC_KEY, "ES256", "rsa"),
        (tokens.EC_KEY, "ES256", "ed"),
        (tokens.RSA_KEY, "RS256", "ec"),
        (tokens.ED_KEY, "EdDSA", "ec"),
    ],
)
def test_an_algorithm_that_does_not_fit_the_key(
    authenticator: Authenticator, key: Any, algorithm: str, kid: str
) -> None:
    assert refusal(authenticator, tokens.token(key, algorithm, {"kid": kid})) == "TOKEN_ALGORITHM"


def test_a_key_of_the_wrong_curve_verifies_nothing(authenticator: Authenticator) -> None:
    token = tokens.token(tokens.EC_KEY, "ES256", {"kid": "p384"})
    assert refusal(authenticator, token) == "TOKEN_KEY_UNKNOWN"


def test_an_algorithm_that_the_issuer_does_not_use(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    authenticator = tokens.authenticator(path, Clock(), algorithms=("ES256",))
    assert refusal(authenticator, tokens.token(tokens.RSA_KEY, "RS256", {"kid": "rsa"})) == "TOKEN_ALGORITHM"


def test_a_key_that_is_published_for_one_algorithm_serves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish(path, [tokens.jwk(tokens.RSA_KEY, kid="rsa", alg="PS256")])
    authenticator = tokens.authenticator(path, Clock())
    assert refusal(authenticator, tokens.token(tokens.RSA_KEY, "RS256", {"kid": "rsa"})) == "TOKEN_ALGORITHM"


@pytest.mark.parametrize("members", [{"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": "verify"}])
def test_a_key_for_something_else_verifies_nothing(tmp_path: Path, members: dict[str, Any]) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish(path, [tokens.jwk(tokens.EC_KEY, kid="ec", **members), tokens.jwk(tokens.ED_KEY, kid="ed")])
    assert refusal(tokens.authenticator(path, Clock()), tokens.token()) == "TOKEN_KEY_UNKNOWN"


def test_a_stranger_with_the_right_kid(authenticator: Authenticator) -> None:
    assert refusal(authenticator, tokens.token(tokens.OTHER_EC_KEY)) == "TOKEN_SIGNATURE"


def test_a_key_that_travels_in_the_token(authenticator: Authenticator) -> None:
    own = tokens.jwk(tokens.OTHER_EC_KEY)
    for header in (
        {"jwk": own},
        {"jwk": own, "kid": None},
        {"x5c": ["MIIB"]},
        {"jku": "https://evil.test/jwks"},
        {"x5u": "x"},
    ):
        assert refusal(authenticator, tokens.token(tokens.OTHER_EC_KEY, header=header)) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "ec' UNION SELECT 'x",
        "ec\x00",
        "EC",
        " ec",
        "http://evil.test/",
    ],
)
def test_a_kid_is_a_name_and_nothing_else(authenticator: Authenticator, kid: str) -> None:
    assert refusal(authenticator, tokens.token(header={"kid": kid})) == "TOKEN_KEY_UNKNOWN"


@pytest.mark.parametrize("kid", [1, True, [], {}, ["ec"], "", "k" * 257])
def test_a_kid_that_is_no_name(authenticator: Authenticator, kid: Any) -> None:
    token = tokens.assemble({"alg": "ES256", "kid": kid}, tokens.claims(), b"x" * 64)
    assert refusal(authenticator, token) == "TOKEN_MALFORMED"


def test_every_byte_of_the_signature_counts(authenticator: Authenticator) -> None:
    body, _, signature = tokens.token().rpartition(".")
    raw = jwt.utils.base64url_decode(signature)
    for position in range(len(raw)):
        flipped = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        assert refusal(authenticator, f"{body}.{tokens.encode(flipped)}") == "TOKEN_SIGNATURE"


@pytest.mark.parametrize("shape", ["der", "cut", "long", "zero", "repeated"])
def test_a_signature_of_another_shape(authenticator: Authenticator, shape: str) -> None:
    body, _, signature = tokens.token().rpartition(".")
    raw = jwt.utils.base64url_decode(signature)
    forged = {
        "der": b"\x30\x44\x02\x20" + raw[:32] + b"\x02\x20" + raw[32:],
        "cut": raw[:63],
        "long": raw + b"\x00",
        "zero": bytes(64),
        "repeated": raw + raw,
    }[shape]
    assert refusal(authenticator, f"{body}.{tokens.encode(forged)}") == "TOKEN_SIGNATURE"


def test_the_same_signature_over_other_claims(authenticator: Authenticator) -> None:
    header, _, signature = tokens.token().split(".")
    other = tokens.encode(json.dumps(tokens.claims(tenant="globex")).encode())
    assert refusal(authenticator, f"{header}.{other}.{signature}") == "TOKEN_SIGNATURE"


def test_a_cached_token_lends_nothing_to_a_changed_one(authenticator: Authenticator) -> None:
    token = tokens.token()
    authenticator.authenticate(f"Bearer {token}")
    body, _, signature = token.rpartition(".")
    other = "A" if signature[0] != "A" else "B"
    assert refusal(authenticator, f"{body}.{other}{signature[1:]}") == "TOKEN_SIGNATURE"
