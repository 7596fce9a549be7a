"""Tokens of odd shape: too large, unparsable, ambiguous, extended, or with claims that are missing or nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.authentication import Authenticator
from meshgate.errors import Unauthenticated
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import NOW, Clock


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    return tokens.authenticator(path, Clock())


def refusal(authenticator: Authenticator, authorization: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        authenticator.authenticate(authorization)
    return caught.value.reason


def test_a_huge_token_is_refused_unread(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.authentication.header.read", None)
    assert refusal(authenticator, "Bearer " + "a" * 8193) == "TOKEN_MALFORMED"
    assert refusal(authenticator, "Bearer " + tokens.token(padding="x" * 100_000)) == "TOKEN_MALFORMED"


def test_a_token_as_long_as_allowed_is_read(authenticator: Authenticator) -> None:
    token = tokens.token(padding="x" * 5800)
    assert 8000 < len(token) <= 8192
    assert authenticator.authenticate(f"Bearer {token}").subject == "bob"


@pytest.mark.parametrize(
    "shape",
    [
        "Bearer ",
        "Bearer  {}",
        "Bearer {} ",
        "Bearer {},Bearer {}",
        "Bearer {}, {}",
        "Bearer {}\n",
        "Bearer {}.{}",
        "Bearer ..",
        "Bearer a.b",
        "Bearer a.b.c.d.e",
        "Bearer {}=",
        "Bearer \u0435{}",
        "Bearer {}\ud800",
    ],
)
def test_anything_but_one_token(authenticator: Authenticator, shape: str) -> None:
    assert refusal(authenticator, shape.replace("{}", tokens.token())) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": NOW},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": []},
        {"b64": False},
        {"zip": "DEF"},
        {"typ": "JWE"},
        {"typ": "dpop+jwt"},
        {"typ": 1},
        {"typ": None},
    ],
)
def test_a_header_that_changes_the_rules(authenticator: Authenticator, header: dict[str, Any]) -> None:
    """Properly signed all the same."""
    payload = json.dumps(tokens.claims()).encode()
    token = tokens.sign({"alg": "ES256", "kid": "ec", **header}, payload)
    assert refusal(authenticator, f"Bearer {token}") == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe{}",
        b"[" * 4000,
        b'{"exp": NaN}',
        b'{"exp": Infinity}',
        b'{"exp": ' + b"9" * 5000 + b"}",
        json.dumps(tokens.claims()).encode("utf-16"),
        json.dumps(tokens.claims()).encode()[:-1] + b', "sub": "admin"}',
        json.dumps(tokens.claims()).encode()[:-1] + b', "tenant": "globex"}',
    ],
)
def test_a_payload_that_is_no_object_or_ambiguous(authenticator: Authenticator, payload: bytes) -> None:
    """Properly signed all the same."""
    token = tokens.sign({"alg": "ES256", "kid": "ec"}, payload)
    assert refusal(authenticator, f"Bearer {token}") == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": None}, "TOKEN_ISSUER"),
        ({"iss": "https://issuer.test/"}, "TOKEN_ISSUER"),
        ({"iss": "HTTPS://ISSUER.TEST"}, "TOKEN_ISSUER"),
        ({"iss": ["https://issuer.test"]}, "TOKEN_ISSUER"),
        ({"aud": None}, "TOKEN_AUDIENCE"),
        ({"aud": "other"}, "TOKEN_AUDIENCE"),
        ({"aud": "meshgate "}, "TOKEN_AUDIENCE"),
        ({"aud": []}, "TOKEN_AUDIENCE"),
        ({"aud": ["meshgate", 1]}, "TOKEN_AUDIENCE"),
        ({"aud": {"meshgate": True}}, "TOKEN_AUDIENCE"),
        ({"sub": None}, "TOKEN_CLAIM"),
        ({"sub": ""}, "TOKEN_CLAIM"),
        ({"sub": 7}, "TOKEN_CLAIM"),
        ({"sub": "x" * 257}, "TOKEN_CLAIM"),
        ({"sub": "é" * 129}, "TOKEN_CLAIM"),
        ({"sub": "bob\nadmin"}, "TOKEN_CLAIM"),
        ({"sub": "bob\x1b[2J"}, "TOKEN_CLAIM"),
        ({"sub": "\ud800"}, "TOKEN_CLAIM"),
        ({"tenant": None}, "TOKEN_CLAIM"),
        ({"tenant": ""}, "TOKEN_CLAIM"),
        ({"tenant": "*"}, "TOKEN_CLAIM"),
        ({"tenant": "a b"}, "TOKEN_CLAIM"),
        ({"tenant": "acmé"}, "TOKEN_CLAIM"),
        ({"tenant": "acme\r\nx: y"}, "TOKEN_CLAIM"),
        ({"tenant": "acme\n"}, "TOKEN_CLAIM"),
        ({"tenant": "x" * 129}, "TOKEN_CLAIM"),
        ({"tenant": ["acme"]}, "TOKEN_CLAIM"),
        ({"scope": ["generate"]}, "TOKEN_CLAIM"),
        ({"scope": 1}, "TOKEN_CLAIM"),
        ({"scope": None, "scp": [1]}, "TOKEN_CLAIM"),
        ({"scope": None, "scp": {"generate": 1}}, "TOKEN_CLAIM"),
        ({"exp": None}, "TOKEN_CLAIM"),
        ({"exp": str(NOW + 60)}, "TOKEN_CLAIM"),
        ({"exp": True}, "TOKEN_CLAIM"),
        ({"exp": [NOW + 60]}, "TOKEN_CLAIM"),
        ({"exp": -1}, "TOKEN_CLAIM"),
        ({"exp": 2**60}, "TOKEN_CLAIM"),
        ({"exp": 1e300}, "TOKEN_CLAIM"),
        ({"exp": NOW - 31}, "TOKEN_EXPIRED"),
        ({"exp": 0}, "TOKEN_EXPIRED"),
        ({"nbf": NOW + 3600}, "TOKEN_NOT_YET_VALID"),
        ({"nbf": "soon"}, "TOKEN_CLAIM"),
        ({"iat": NOW + 3600}, "TOKEN_NOT_YET_VALID"),
        ({"iat": {}}, "TOKEN_CLAIM"),
        ({"jti": 1}, "TOKEN_CLAIM"),
        ({"jti": ""}, "TOKEN_CLAIM"),
        ({"cnf": {"jkt": "dpop"}}, "TOKEN_CLAIM"),
        ({"cnf": {}}, "TOKEN_CLAIM"),
        ({"cnf": "x"}, "TOKEN_CLAIM"),
    ],
)
def test_claims_that_are_missing_or_nonsense(
    authenticator: Authenticator, changes: dict[str, Any], reason: str
) -> None:
    assert refusal(authenticator, f"Bearer {tokens.token(**changes)}") == reason


def test_null_is_no_expiry(authenticator: Authenticator) -> None:
    payload = json.dumps({**tokens.claims(), "exp": None}).encode()
    token = tokens.sign({"alg": "ES256", "kid": "ec"}, payload)
    assert refusal(authenticator, f"Bearer {token}") == "TOKEN_CLAIM"


@pytest.mark.parametrize(
    ("leeway", "late", "good"), [(0, 0, False), (0, -0.001, True), (300, 299, True), (300, 300, False)]
)
def test_expiry_by_the_second(tmp_path: Path, leeway: int, late: float, good: bool) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    clock = Clock(NOW + 60 + late)
    authenticator = tokens.authenticator(path, clock, leeway_seconds=leeway)
    if good:
        assert authenticator.authenticate(f"Bearer {tokens.token()}").subject == "bob"
    else:
        assert refusal(authenticator, f"Bearer {tokens.token()}") == "TOKEN_EXPIRED"


def test_no_refusal_repeats_what_the_token_said(authenticator: Authenticator) -> None:
    marker = "s3cret-marker"
    forged: list[dict[str, Any]] = [
        {"sub": marker * 30},
        {"iss": marker},
        {"aud": marker},
        {"tenant": f"{marker} x"},
        {"exp": marker},
    ]
    for changes in forged:
        with pytest.raises(Unauthenticated) as caught:
            authenticator.authenticate(f"Bearer {tokens.token(**changes)}")
        assert marker not in caught.value.message
