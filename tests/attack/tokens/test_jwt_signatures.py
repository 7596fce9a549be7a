"""Forged signatures of each algorithm, in the families of Wycheproof's JWS and ECDSA, RSA and EdDSA vectors.

Each is made here with the private key in hand, so that all but the flaw is right; a good signature made by the same
means is believed, which shows that it is the flaw that is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt.utils import base64url_decode

from gateway.authentication import Authenticator
from gateway.authentication.keys import keyset
from gateway.authentication.keys.rsa_key import _POWERS, sound
from meshgate.errors import Unauthenticated
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock

P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_PRIME: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
REFUSED: Final = {"TOKEN_SIGNATURE", "TOKEN_MALFORMED"}


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    return tokens.authenticator(path, Clock())


def body(algorithm: str, kid: str) -> str:
    return tokens.token(tokens.KEYS[kid], algorithm, {"kid": kid}).rpartition(".")[0]


def outcome(authenticator: Authenticator, token: str) -> str:
    try:
        return authenticator.authenticate(f"Bearer {token}").subject
    except Unauthenticated as error:
        return error.reason


def signed(authenticator: Authenticator, text: str, signature: bytes) -> str:
    return outcome(authenticator, f"{text}.{tokens.encode(signature)}")


def es256(text: str) -> tuple[int, int]:
    return decode_dss_signature(tokens.EC_KEY.sign(text.encode(), tokens.ES256))


EDGES: Final = (0, 1, 2, P256_ORDER - 1, P256_ORDER, P256_ORDER + 1, P256_PRIME, 2**256 - 1)


@pytest.mark.parametrize(("r", "s"), list(itertools.product(EDGES, EDGES)))
def test_es256_with_numbers_at_the_edge(authenticator: Authenticator, r: int, s: int) -> None:
    """Zeros are the `psychic` signature (CVE-2022-21449)."""
    forged = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert signed(authenticator, body("ES256", "ec"), forged) == "TOKEN_SIGNATURE"


def _twice(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize(
    "shape",
    [
        lambda r, s: _twice(r) + _twice(s) + b"\x00",
        lambda r, s: b"\x00" + _twice(r) + _twice(s),
        lambda r, s: (_twice(r) + _twice(s))[:-1],
        lambda r, s: r.to_bytes(33, "big") + s.to_bytes(33, "big"),
        lambda r, s: (r + P256_ORDER).to_bytes(33, "big") + s.to_bytes(33, "big"),
        lambda r, s: _twice(s) + _twice(r),
        lambda r, s: _twice(r)[::-1] + _twice(s)[::-1],
        lambda r, s: _twice(r),
        lambda r, s: b"",
        lambda r, s: (_twice(r) + _twice(s)).hex().encode(),
    ],
)
def test_es256_of_another_shape(authenticator: Authenticator, shape: Callable[[int, int], bytes]) -> None:
    text = body("ES256", "ec")
    r, s = es256(text)
    assert signed(authenticator, text, _twice(r) + _twice(s)) == "bob"
    assert signed(authenticator, text, shape(r, s)) in REFUSED


def test_the_other_root_of_es256_proves_the_same_and_no_more(authenticator: Authenticator) -> None:
    """ECDSA has two signatures for each; whoever has one can make the other. Nothing here tells tokens apart by it."""
    text = body("ES256", "ec")
    r, s = es256(text)
    one = authenticator.authenticate(f"Bearer {text}.{tokens.encode(_twice(r) + _twice(s))}")
    assert authenticator.authenticate(f"Bearer {text}.{tokens.encode(_twice(r) + _twice(P256_ORDER - s))}") == one


def rsa_raw(block: bytes) -> bytes:
    """The signature that opens to exactly this block."""
    numbers = tokens.RSA_KEY.private_numbers()
    value = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    return value.to_bytes(256, "big")


def padded(info: bytes, *, kind: bytes = b"\x00\x01", fill: bytes = b"\xff", end: bytes = b"\x00") -> bytes:
    return kind + fill * (256 - len(kind) - len(end) - len(info)) + end + info


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


BLOCKS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "no padding at all": lambda d: (SHA256_INFO + d).rjust(256, b"\x00"),
    "of encryption": lambda d: padded(SHA256_INFO + d, kind=b"\x00\x02"),
    "kind 0": lambda d: padded(SHA256_INFO + d, kind=b"\x00\x00"),
    "zeros": lambda d: padded(SHA256_INFO + d, fill=b"\x00"),
    "one other byte": lambda d: padded(SHA256_INFO + d).replace(b"\xff" * 8, b"\xff" * 7 + b"\xfe", 1),
    "no end": lambda d: padded(SHA256_INFO + d, end=b"\xff"),
    "garbage after": lambda d: b"\x00\x01" + b"\xff" * 8 + b"\x00" + SHA256_INFO + d + bytes(256 - 11 - 51),
    "garbage before": lambda d: b"\x00\x01" + b"\xff" * 8 + b"\x00" + bytes(256 - 11 - 51) + SHA256_INFO + d,
    "no hash name": padded,
    "no null": lambda d: padded(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + d),
    "long form": lambda d: padded(b"\x30\x81" + SHA256_INFO[1:] + d),
    "wrong length": lambda d: padded(b"\x30\x32" + SHA256_INFO[2:] + d),
    "indefinite length": lambda d: padded(b"\x30\x80" + SHA256_INFO[2:] + d + b"\x00\x00"),
    "of SHA-1": lambda d: padded(bytes.fromhex("3021300906052b0e03021a05000414") + d[:20]),
    "of SHA-512": lambda d: padded(bytes.fromhex("3051300d060960864801650304020305000440") + d + d),
    "short digest": lambda d: padded(SHA256_INFO + d[:31]),
    "other digest": lambda d: padded(SHA256_INFO + bytes(32)),
}


@pytest.mark.parametrize("flaw", BLOCKS)
def test_rs256_with_a_flawed_block(authenticator: Authenticator, flaw: str) -> None:
    text = body("RS256", "rsa")
    assert signed(authenticator, text, rsa_raw(padded(SHA256_INFO + digest(text)))) == "bob"
    assert signed(authenticator, text, rsa_raw(BLOCKS[flaw](digest(text)))) == "TOKEN_SIGNATURE"


@pytest.mark.parametrize("value", [0, 1, -1, None])
def test_rsa_with_numbers_at_the_edge(authenticator: Authenticator, value: int | None) -> None:
    n = tokens.RSA_KEY.public_key().public_numbers().n
    forged = (n if value is None else value % n).to_bytes(256, "big")
    for algorithm in ("RS256", "PS256"):
        assert signed(authenticator, body(algorithm, "rsa"), forged) == "TOKEN_SIGNATURE"


@pytest.mark.parametrize("shape", [lambda s: s + b"\x00", lambda s: b"\x00" + s, lambda s: s[:-1], lambda s: s + s])
def test_rsa_of_another_length(authenticator: Authenticator, shape: Callable[[bytes], bytes]) -> None:
    text = body("RS256", "rsa")
    good = tokens.RSA_KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert signed(authenticator, text, good) == "bob"
    assert signed(authenticator, text, shape(good)) == "TOKEN_SIGNATURE"


def test_rsa_beyond_the_modulus(authenticator: Authenticator) -> None:
    text = body("RS256", "rsa")
    good = int.from_bytes(tokens.RSA_KEY.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()), "big")
    beyond = good + tokens.RSA_KEY.public_key().public_numbers().n
    assert signed(authenticator, text, beyond.to_bytes(257, "big")) == "TOKEN_SIGNATURE"


@pytest.mark.parametrize(("algorithm", "other"), [("RS256", "PS256"), ("PS256", "RS256")])
def test_one_padding_is_not_the_other(authenticator: Authenticator, algorithm: str, other: str) -> None:
    signature = tokens.token(tokens.RSA_KEY, other, {"kid": "rsa"}).rpartition(".")[2]
    assert outcome(authenticator, f"{body(algorithm, 'rsa')}.{signature}") == "TOKEN_SIGNATURE"


@pytest.mark.parametrize(
    ("mask", "salt", "hashed"),
    [
        (hashes.SHA256(), 0, hashes.SHA256()),
        (hashes.SHA256(), 20, hashes.SHA256()),
        (hashes.SHA256(), 31, hashes.SHA256()),
        (hashes.SHA256(), 33, hashes.SHA256()),
        (hashes.SHA256(), 222, hashes.SHA256()),
        (hashes.SHA1(), 32, hashes.SHA256()),
        (hashes.SHA512(), 32, hashes.SHA256()),
        (hashes.SHA256(), 32, hashes.SHA384()),
        (hashes.SHA1(), 20, hashes.SHA1()),
    ],
)
def test_ps256_with_other_parameters(authenticator: Authenticator, mask: Any, salt: int, hashed: Any) -> None:
    text = body("PS256", "rsa")
    right = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert signed(authenticator, text, tokens.RSA_KEY.sign(text.encode(), right, hashes.SHA256())) == "bob"
    forged = tokens.RSA_KEY.sign(text.encode(), padding.PSS(padding.MGF1(mask), salt), hashed)
    assert signed(authenticator, text, forged) == "TOKEN_SIGNATURE"


@pytest.mark.parametrize(
    "shape",
    [
        lambda r, s: r + (int.from_bytes(s, "little") + ED25519_ORDER).to_bytes(32, "little"),  # malleable
        lambda r, s: bytes(64),
        lambda r, s: b"\x01" + bytes(63),
        lambda r, s: r + bytes(32),
        lambda r, s: bytes(32) + s,
        lambda r, s: b"\xff" * 32 + s,
        lambda r, s: s + r,
        lambda r, s: r + s + b"\x00",
        lambda r, s: (r + s)[:-1],
        lambda r, s: b"",
    ],
)
def test_eddsa_forged(authenticator: Authenticator, shape: Callable[[bytes, bytes], bytes]) -> None:
    text = body("EdDSA", "ed")
    good = tokens.ED_KEY.sign(text.encode())
    assert signed(authenticator, text, good) == "bob"
    assert signed(authenticator, text, shape(good[:32], good[32:])) in REFUSED


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "=",
        lambda text: text + "==",
        lambda text: text[:4] + " " + text[4:],
        lambda text: text[:4] + "\n" + text[4:],
        lambda text: text[:4] + "!" + text[4:],
        lambda text: text[:4] + "\x00" + text[4:],
        lambda text: text + "A",
        lambda text: text.replace("-", "+").replace("_", "/") + "/",
        lambda text: text[:-1],
        lambda text: "",
    ],
)
def test_base64_that_lenient_decoders_pass(
    authenticator: Authenticator, part: int, change: Callable[[str], str]
) -> None:
    parts = tokens.token().split(".")
    parts[part] = change(parts[part])
    assert outcome(authenticator, ".".join(parts)) in REFUSED


@pytest.mark.parametrize(("kid", "algorithm"), [("ec", "ES256"), ("ed", "EdDSA"), ("rsa", "RS256")])
def test_bits_that_nobody_reads_must_be_zero(authenticator: Authenticator, kid: str, algorithm: str) -> None:
    """Else one token could be written in several ways."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = tokens.token(tokens.KEYS[kid], algorithm, {"kid": kid})
    assert outcome(authenticator, token) == "bob"
    same = [token[:-1] + letter for letter in letters if base64url_decode(token.split(".")[2]) == _last(token, letter)]
    assert len(same) == 16
    assert [outcome(authenticator, other) for other in same if other != token] == ["TOKEN_MALFORMED"] * 15


def _last(token: str, letter: str) -> bytes:
    return base64url_decode(token.split(".")[2][:-1] + letter)


@pytest.mark.parametrize(
    "document",
    [
        lambda token: json.dumps(dict(zip(("protected", "payload", "signature"), token.split("."), strict=True))),
        lambda token: f"{token}.{token.rpartition('.')[2]}",
        lambda token: token.replace(".", "..", 1),
        lambda token: token.rpartition(".")[0],
        lambda token: token.partition(".")[2],
        lambda token: f".{token}",
        lambda token: token.replace(".", " "),
    ],
)
def test_another_serialisation(authenticator: Authenticator, document: Callable[[str], str]) -> None:
    assert outcome(authenticator, document(tokens.token())) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg": "none", "alg": "ES256", "kid": "ec"}',
        b'{"alg": "ES256", "alg": "none", "kid": "ec"}',
        b'{"alg": "ES256", "kid": "rsa", "kid": "ec"}',
        b'{"alg": "ES256", "kid": "ec", "\\u0061lg": "none"}',
    ],
)
def test_a_header_that_says_two_things(authenticator: Authenticator, header: bytes) -> None:
    text = f"{tokens.encode(header)}.{tokens.encode(json.dumps(tokens.claims()).encode())}"
    r, s = es256(text)
    assert signed(authenticator, text, _twice(r) + _twice(s)) == "TOKEN_MALFORMED"


def published(key: Any, **members: Any) -> bool:
    """Whether a key is believed where it stands beside a good one."""
    jwks = tokens.key_set([tokens.jwk(tokens.EC_KEY, kid="ec"), {**tokens.jwk(key, kid="weak"), **members}])
    return "weak" in keyset.parse(jwks)


def test_weak_rsa_keys_are_left_out() -> None:
    """CVE-2025-45768, RFC 7518 section 3.3, FIPS 186-5."""
    assert published(tokens.RSA_KEY)
    assert not published(rsa.generate_private_key(65537, 1024))
    assert not published(rsa.generate_private_key(3, 2048))
    assert not published(tokens.RSA_KEY, e="AQ")
    assert not published(tokens.RSA_KEY, e="AQAA")
    assert not published(tokens.RSA_KEY, n=tokens.encode(b"\xff" * 8192))


def test_rsa_keys_of_the_form_that_gives_them_away_are_left_out() -> None:
    """ROCA, CVE-2017-15361: a number that is a power of 65537 modulo each small prime, as RSALib's moduli are."""
    product = 1
    for prime in _POWERS:
        product *= prime
    modulus = pow(65537, 12345, product) + product * (2**2047 // product + 1)
    modulus += 0 if modulus % 2 else product
    assert modulus.bit_length() == 2048
    assert not sound(rsa.RSAPublicNumbers(65537, modulus).public_key())
    assert sound(rsa.RSAPublicNumbers(65537, modulus + 2).public_key())


@pytest.mark.parametrize(
    "members",
    [{"crv": "P-384"}, {"crv": "secp256k1"}, {"x": "AA", "y": "AA"}, {"y": "AA"}, {"x": 1}, {"crv": ["P-256"]}],
)
def test_a_point_that_is_not_on_its_curve_is_no_key(members: dict[str, Any]) -> None:
    assert not published(tokens.OTHER_EC_KEY, **members)
