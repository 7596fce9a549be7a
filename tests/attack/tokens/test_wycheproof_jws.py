"""The JWS vectors of C2SP's Wycheproof, where a copy of them is at hand: WYCHEPROOF names its root.

They are not part of this repository; test_jwt_signatures.py makes the same families of forgeries anew, and
test_wycheproof_signatures.py runs the vectors of the signatures alone. Vectors with algorithms that can't be
configured here (HMAC, SHA-384 and SHA-512, other curves) must be refused, the good ones too.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from gateway.authentication import header, verification
from gateway.authentication.keys import keyset
from gateway.authentication.keys.keyset import KeySetError
from meshgate.errors import Unauthenticated

ROOT = os.environ.get("WYCHEPROOF")
FILES = ("json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json")

pytestmark = pytest.mark.skipif(ROOT is None, reason="WYCHEPROOF names no copy of the vectors")


def vectors(name: str) -> list[Any]:
    if ROOT is None:
        return []
    groups = json.loads((Path(ROOT) / "testvectors_v1" / name).read_bytes())["testGroups"]
    return [
        (group.get("public") or group["private"], test) for group in groups for test in group["tests"] if "jws" in test
    ]


def accepted(jwk: Any, jws: Any) -> bool:
    """Whether the signature would be believed: all of the checks but those of claims, since the payloads are none."""
    parts = header._COMPACT.fullmatch(jws) if isinstance(jws, str) else None
    if parts is None or not all(map(header._canonical, parts.groups())):
        return False
    try:
        head = header._object(parts[1], "header")
        listed = keyset.parse(json.dumps(jwk if "keys" in jwk else {"keys": [jwk]}).encode())
        (key,) = next(iter(listed.keys.values()))
        if not header._FORBIDDEN.isdisjoint(head) or header._algorithm(head) not in key.algorithms:
            return False
        verification.check_signature(jws, key, header._algorithm(head))
    except (Unauthenticated, KeySetError):
        return False
    return True


def ours(jws: Any) -> bool:
    """Whether a vector's algorithm is one that we believe at all, and its payload long enough to be claims."""
    head, payload, _ = jws.split(".")
    return json.loads(urlsafe_b64decode(head + "=="))["alg"] in {"ES256", "EdDSA", "RS256", "PS256"} and payload


@pytest.mark.parametrize("name", FILES)
def test_no_forgery_is_believed_and_every_good_signature_is(name: str) -> None:
    tested = vectors(name)
    wrong = []
    for jwk, test in tested:
        expected = test["result"] == "valid" and bool(ours(test["jws"]))
        if accepted(jwk, test["jws"]) is not expected:
            wrong.append((test["tcId"], test["comment"], test["result"]))
    assert tested
    assert wrong == []
