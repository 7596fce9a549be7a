"""The development issuer: makes a signing key and mints tokens with it, so that one machine needs no identity provider.

In production tokens come from your own issuer and this key does not exist.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshgate.runtime.config import ConfigError
from meshgate.runtime.files import atomic_write, key_file

ISSUER: Final = "https://meshgate.local/dev"
AUDIENCE: Final = "meshgate"
SCOPES: Final = ("generate", "embed", "classify", "models")
"""What a development token may do unless it is told otherwise."""
_SHORT: Final = 15 * 60


def ensure_key(home: Path) -> None:
    """Makes keys/issuer-key.pem (ES256, owner-only) and keys/jwks.json under `home` where they are missing.

    A JWK Set that lacks the key is written anew. Raises OSError, and ConfigError for a file that is not such a key.
    """
    path = key_path(home)
    public = _public_jwk(_parsed(path, key_file.obtain(path, _new_key)))
    path = home / "keys" / "jwks.json"
    if not _publishes(path, public):
        atomic_write.write(path, json.dumps({"keys": [public]}, indent=2).encode())


def mint(
    home: Path,
    *,
    tenant: str,
    subject: str,
    scopes: Iterable[str],
    ttl: int,
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
) -> str:
    """A signed token, good for `ttl` seconds from now.

    Raises ConfigError where `home` has no issuer's key: one made here would be one that no gateway knows. And OSError.
    """
    key = _signing_key(home)
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "tenant": tenant,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + ttl,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": _public_jwk(key)["kid"], "typ": "at+jwt"})


def development_token(home: Path) -> str:
    """A short-lived token of tenant `dev` with every ordinary scope, for the CLI on the machine that has the key."""
    return mint(home, tenant="dev", subject="developer", scopes=SCOPES, ttl=_SHORT)


def _publishes(path: Path, public: dict[str, Any]) -> bool:
    try:
        return public in json.loads(path.read_bytes())["keys"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def key_path(home: Path) -> Path:
    """Where the issuer's private key is."""
    return home / "keys" / "issuer-key.pem"


def _signing_key(home: Path) -> ec.EllipticCurvePrivateKey:
    path = key_path(home)
    try:
        return _parsed(path, path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{path}: no such file; `make up` makes the development issuer's key: run this command in the same "
            "directory, or name the mesh's state directory with --home or MESHGATE_HOME"
        ) from None


def _parsed(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: an encrypted one
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path}: not a P-256 private key in PEM; remove the file, and `make up` makes another")
    return key


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """The public half, named by its thumbprint (RFC 7638): SHA-256 of the required members in order, without spaces."""
    numbers = key.public_key().public_numbers()
    required = {
        "crv": "P-256",
        "kty": "EC",
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
    }
    thumbprint = hashlib.sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**required, "alg": "ES256", "use": "sig", "kid": _base64url(thumbprint)}


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
