"""Key sets with keys that are bad, weak, ambiguous or twice there: those are left out by name, and the others count."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.authentication.keys import keyset
from gateway.authentication.keys.keyset import KeySetError
from meshgate.errors import MeshError
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock

EC = tokens.jwk(tokens.EC_KEY, kid="ec")
RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def algorithms(listed: list[Any], kid: str | None) -> set[str]:
    return {name for key in keyset.parse(tokens.key_set(listed)).find(kid) for name in key.algorithms}


def rsa_jwk(number: int = 0, **members: Any) -> dict[str, Any]:
    return tokens.jwk(RSA_KEYS[number], kid="k", **members)


@pytest.mark.parametrize(
    ("listed", "usable"),
    [
        ([rsa_jwk(alg="RS256"), rsa_jwk(alg="PS256")], {"RS256", "PS256"}),
        ([rsa_jwk(), rsa_jwk()], {"RS256", "PS256"}),
        ([rsa_jwk(alg="RS256"), rsa_jwk(1, alg="PS256")], {"RS256", "PS256"}),
        ([rsa_jwk(alg="RS256"), rsa_jwk(1, alg="RS256")], set()),
        ([rsa_jwk(), rsa_jwk(1, alg="RS256")], {"PS256"}),
        ([rsa_jwk(), rsa_jwk(1)], set()),
        ([rsa_jwk(use="sig"), rsa_jwk(1, use="enc")], {"RS256", "PS256"}),
        ([rsa_jwk(key_ops=["verify"]), rsa_jwk(1, key_ops=["encrypt"])], {"RS256", "PS256"}),
        ([rsa_jwk(alg="RS256"), rsa_jwk(1, alg="RSA-OAEP")], {"RS256"}),
        ([rsa_jwk(), tokens.jwk(tokens.EC_KEY, kid="k")], {"RS256", "PS256", "ES256"}),
        ([rsa_jwk(), tokens.jwk(tokens.ED_KEY, kid="k"), tokens.jwk(tokens.EC_KEY, kid="k")], set(tokens.ALL)),
        ([tokens.jwk(tokens.EC_KEY, kid="k"), tokens.jwk(tokens.OTHER_EC_KEY, kid="k")], set()),
    ],
)
def test_keys_of_one_name_are_told_apart_by_kind_and_algorithm(listed: list[Any], usable: set[str]) -> None:
    for order in itertools.permutations(listed):
        assert algorithms([*order, EC], "k") == usable
        assert algorithms([*order, EC], "ec") == {"ES256"}
        told = keyset.parse(tokens.key_set([*order, EC])).dropped
        assert bool(told) == (usable == set() or usable == {"PS256"})
        assert all("kid 'k'" in line for line in told)


@pytest.mark.parametrize(("number", "algorithm"), [(0, "RS256"), (1, "PS256")])
def test_each_of_two_keys_verifies_its_own_algorithm(tmp_path: Path, number: int, algorithm: str) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish(path, [rsa_jwk(alg="RS256"), rsa_jwk(1, alg="PS256")])
    for key, name in itertools.product((0, 1), ("RS256", "PS256")):
        token = tokens.token(RSA_KEYS[key], name, {"kid": "k"})
        try:
            tokens.authenticator(path, Clock()).authenticate(f"Bearer {token}")
        except MeshError as error:
            assert error.reason == "TOKEN_SIGNATURE"
            assert (key, name) not in ((0, "RS256"), (1, "PS256"))


BAD: dict[str, Any] = {
    "no object": 7,
    "nothing": None,
    "a list": [],
    "text": "EC",
    "a kid that is no text": {**EC, "kid": 5},
    "a kid of nothing": {**EC, "kid": ""},
    "a kid of null": {**EC, "kid": None},
    "a long kid": {**EC, "kid": "k" * 257},
    "a point that is not on the curve": {**EC, "kid": "bad", "x": tokens.encode(b"\x01" * 32)},
    "infinity": {**EC, "kid": "bad", "x": "", "y": ""},
    "zero": {**EC, "kid": "bad", "x": tokens.encode(bytes(32)), "y": tokens.encode(bytes(32))},
    "coordinates beyond the field": {**EC, "kid": "bad", "x": tokens.encode(b"\xff" * 32)},
    "a coordinate of another length": {**EC, "kid": "bad", "x": tokens.encode(bytes(33))},
    "no y": {"kty": "EC", "crv": "P-256", "x": EC["x"], "kid": "bad"},
    "an Ed25519 key that is short": {"kty": "OKP", "crv": "Ed25519", "x": tokens.encode(bytes(31)), "kid": "bad"},
    "an even exponent": rsa_jwk(e=tokens.encode((65538).to_bytes(3, "big"))),
    "exponent 3": rsa_jwk(e="Aw"),
    "exponent 1": rsa_jwk(e="AQ"),
    "exponent 0": rsa_jwk(e="AA"),
    "a huge exponent": rsa_jwk(e=tokens.encode(b"\x01" * 33)),
    "an exponent as long as the modulus": rsa_jwk(e=rsa_jwk()["n"]),
    "an even modulus": rsa_jwk(n=tokens.encode((RSA_KEYS[0].public_key().public_numbers().n - 1).to_bytes(256, "big"))),
    "a modulus with a small factor": rsa_jwk(n=tokens.encode((3 * (2**2047 + 9)).to_bytes(257, "big"))),
    "a square": rsa_jwk(n=tokens.encode(((2**1024 - 105) ** 2).to_bytes(256, "big"))),
    "a short modulus": tokens.jwk(rsa.generate_private_key(65537, 1024), kid="bad"),
    "a long modulus": rsa_jwk(n=tokens.encode((2**8193 + 1).to_bytes(1025, "big"))),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_key_is_left_out_by_name_and_the_others_count(name: str, first: bool) -> None:
    listed = [BAD[name], EC] if first else [EC, BAD[name]]
    found = keyset.parse(json.dumps({"keys": listed}).encode())
    assert set(found.keys) == {"ec", None}
    (told,) = found.dropped
    assert told.startswith("key 0" if first else "key 1")


def test_a_name_that_is_repeated_in_a_key_leaves_it_out() -> None:
    twice = json.dumps(tokens.jwk(tokens.ED_KEY, kid="ed"))[:-1] + ', "kid": "x"}'
    found = keyset.parse(b'{"keys": [%s, %s]}' % (json.dumps(EC).encode(), twice.encode()))
    assert set(found.keys) == {"ec", None} and len(found.dropped) == 1
    with pytest.raises(KeySetError):
        keyset.parse(b'{"keys": [], "keys": [%s]}' % json.dumps(EC).encode())


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "oct", "k": "AAAA", "kid": "x"},
        {"kty": "new", "kid": "x"},
        {"kty": 7},
        {**rsa_jwk(), "use": "enc"},
        {**EC, "alg": "ECDH-ES", "kid": "x"},
        {**EC, "crv": "P-384", "kid": "x"},
        {**EC, "crv": ["P-256"], "kid": "x"},
    ],
)
def test_a_key_for_something_else_is_no_fault(other: dict[str, Any]) -> None:
    found = keyset.parse(tokens.key_set([EC, other]))
    assert set(found.keys) == {"ec", None} and found.dropped == ()


def _add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points of edwards25519, by the law alone."""
    (a, b), (c, d) = one, two
    crossed = D * a * c * b * d % P
    return (a * d + b * c) * pow(1 + crossed, -1, P) % P, (b * d + a * c) * pow(1 - crossed, -1, P) % P


def _points() -> Iterator[tuple[int, int]]:
    """The eight points of small order: the multiples of one of order 8."""
    y = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    point = (0, 1)
    for _ in range(8):
        yield point
        point = _add(point, (x, y))
    assert point == (0, 1)


def small_order() -> list[bytes]:
    """Every encoding of a point of small order, those that are not canonical among them."""
    found = set()
    for x, y in _points():
        for form in (y, y + P):
            for sign in {x & 1} if x else {0, 1}:
                if form < 2**255:
                    found.add((form | sign << 255).to_bytes(32, "little"))
    return sorted(found)


SMALL = small_order()


def test_there_are_as_many_as_the_papers_say() -> None:
    assert len(SMALL) == 14


def ed(encoded: bytes) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": "small", "x": tokens.encode(encoded)}


@pytest.mark.parametrize("encoded", SMALL, ids=lambda encoded: encoded.hex()[:8])
def test_a_key_of_small_order_is_no_key(encoded: bytes) -> None:
    found = keyset.parse(tokens.key_set([EC, ed(encoded)]))
    assert set(found.keys) == {"ec", None} and "small order" in found.dropped[0]


@pytest.mark.parametrize("y", range(P, 2**255))
@pytest.mark.parametrize("sign", [0, 1])
def test_an_encoding_that_is_not_canonical_is_no_key(y: int, sign: int) -> None:
    assert not algorithms([EC, ed((y | sign << 255).to_bytes(32, "little"))], "small")


def test_what_is_no_point_at_all_is_no_key() -> None:
    off = [y for y in range(2, 60) if pow((y * y - 1) * pow(D * y * y + 1, -1, P), (P - 1) // 2, P) != 1]
    assert len(off) > 10
    for y in off:
        assert not algorithms([EC, ed(y.to_bytes(32, "little"))], "small")


async def test_what_is_left_out_is_said_once_and_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "jwks.json"
    bad = [{**EC, "kid": f"\x1b[2J{number}" + "k" * 200, "x": "AA"} for number in range(200)]
    tokens.publish(path, [EC, *bad])
    with caplog.at_level(logging.INFO):
        authenticator = tokens.authenticator(path, Clock())
        for _ in range(3):
            tokens.publish(path, [EC, *bad])
            await authenticator.refresh()
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.__dict__["count"] == 200
    assert "key 1 (kid '" in told.__dict__["why"] and "\x1b" not in told.__dict__["why"]
    assert len(told.__dict__["why"]) < 2000
    authenticator.authenticate(f"Bearer {tokens.token()}")
