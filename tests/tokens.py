"""An issuer for tests: keys of every kind, the JWK Set that publishes them, and tokens of any shape, good or forged."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.authentication import Authenticator, IssuerConfig
from gateway.authentication.revocation.revocation_source import Revocations

ISSUER: Final = "https://issuer.test"
AUDIENCE: Final = "meshgate"
NOW: Final = 1_800_000_000

EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
OTHER_EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
P384_KEY: Final = ec.generate_private_key(ec.SECP384R1())
ED_KEY: Final = ed25519.Ed25519PrivateKey.generate()
RSA_KEY: Final = rsa.generate_private_key(65537, 2048)

KEYS: Final[Mapping[str, Any]] = {"ec": EC_KEY, "ed": ED_KEY, "rsa": RSA_KEY, "p384": P384_KEY}
ES256: Final = ec.ECDSA(hashes.SHA256())
ALL: Final = ("ES256", "EdDSA", "RS256", "PS256")


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """The public JWK of a private key."""
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        made = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        made = OKPAlgorithm.to_jwk(public, as_dict=True)
    made.pop("key_ops", None)
    return {**made, **members}


def publish(path: Path, keys: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JWK Set."""
    path.write_bytes(key_set(keys))


def key_set(keys: Iterable[Mapping[str, Any]]) -> bytes:
    """A JWK Set."""
    return json.dumps({"keys": list(keys)}).encode()


def publish_all(path: Path) -> None:
    """Writes a JWK Set with every key by its name."""
    publish(path, (jwk(key, kid=kid) for kid, key in KEYS.items()))


def authenticator(
    path: Path | None,
    clock: Clock,
    *,
    monotonic: Callable[[], float] | None = None,
    cached_tokens: int = 10_000,
    revocations: Revocations | None = None,
    **config: Any,
) -> Authenticator:
    """One that trusts ISSUER with the keys in `path`, for every algorithm unless told otherwise."""
    fields = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ALL, "jwks": path, **config}
    entry = IssuerConfig.model_validate(fields)
    return Authenticator(
        [entry], clock, monotonic=monotonic or Clock(0.0), cached_tokens=cached_tokens, revocations=revocations
    )


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with some changed; None leaves a claim out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "bob",
        "tenant": "acme",
        "scope": "generate embed",
        "iat": NOW,
        "exp": NOW + 60,
        "jti": "token-1",
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(key: Any = EC_KEY, algorithm: str = "ES256", header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A properly signed token with such claims. `header` {"kid": None} leaves the kid out."""
    merged = {"kid": "ec", **(header or {})}
    named = {name: value for name, value in merged.items() if value is not None}
    payload = json.dumps(claims(**changes)).encode()
    return jwt.PyJWS().encode(payload, key, algorithm=algorithm, headers=named)


def assemble(header: Any, payload: Any, signature: bytes = b"") -> str:
    """A compact token of these parts, signed by nobody. Parts that are bytes go in as they are."""
    return ".".join(
        encode(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)
    ) + ("." + encode(signature))


def sign(header: Mapping[str, Any], payload: bytes, key: ec.EllipticCurvePrivateKey = EC_KEY) -> str:
    """A token whose header and payload are exactly these and whose ES256 signature is good."""
    signing_input = f"{encode(json.dumps(header).encode())}.{encode(payload)}"
    signature = ECAlgorithm(ECAlgorithm.SHA256).sign(signing_input.encode(), key)
    return f"{signing_input}.{encode(signature)}"


def encode(part: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def pem(key: Any) -> bytes:
    """The public half, as everybody may have it."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public: bytes = key.public_key().public_bytes(encoding, form)
    return public
