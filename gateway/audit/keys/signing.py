"""The keys that sign checkpoints: each is signed by the one before it, back to the first, which an auditor has.

A key and its endorsement by the key before lie side by side: `audit-key-2.pem` and `audit-key-2.json`. Every log that
goes over to a new key has that endorsement in a record, so an auditor who has `audit-key.pub.pem` can follow. A private
key is of no more use once all writers have gone over to the next one, and may then be deleted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.audit.keys.key_rotation import KeyRotation
from gateway.audit.record import canonical
from meshgate.runtime.files import key_file

PRIVATE_KEY: Final = "audit-key.pem"
PUBLIC_KEY: Final = "audit-key.pub.pem"
SIGNING_KEY: Final = "signing_key"
"""The event of a record that names the next key."""
_CONTEXT: Final = b"meshgate audit signing key v1\n"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The statement of the key `by` about the next key."""

    by: str
    key: str
    public: Ed25519PublicKey
    signature: bytes

    def fields(self) -> dict[str, Any]:
        """The fields of the record and of the file."""
        return {**_statement(self.by, self.public), "signature": self.signature.hex()}

    @classmethod
    def read(cls, stated: Mapping[str, Any], by: Ed25519PublicKey) -> Endorsement:
        """The endorsement among `stated`, if `by` made it. Raises ValueError."""
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(stated["public"]))
            signature = bytes.fromhex(stated["signature"])
            by.verify(signature, _CONTEXT + canonical(_statement(key_id(by), public)))
            made = cls(key_id(by), key_id(public), public, signature)
            if stated != {**stated, **made.fields()}:  # another spelling of the same is another file
                raise ValueError
        except (ValueError, KeyError, TypeError, InvalidSignature):
            raise ValueError("a signing key that the one before it did not sign") from None
        return made


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of the rotation. `endorsement` is None for the first."""

    public: Ed25519PublicKey
    endorsement: Endorsement | None

    @property
    def key_id(self) -> str:
        return key_id(self.public)


class SigningKeys:
    """The signing keys in a directory. Makes the first one, and the next one when the newest is old enough."""

    def __init__(self, directory: Path, age_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError, or ValueError for keys that can't be used."""
        self._directory = directory
        self._files = KeyRotation(directory, "audit-key", ".pem")
        self._age = age_seconds
        self._clock = clock
        self.keys: list[SigningKey] = []
        """Oldest first."""
        self.rotate()

    def rotate(self) -> None:
        """Reads the existing keys, and makes the missing or due ones. Raises as the constructor does."""
        number = self._files.newest(_new_key, before=self._clock() - self._age)
        private = _private(self._files.path(number))
        if not self.keys:
            self.keys = [SigningKey(self._first(), None)]
        while len(self.keys) < number:
            self.keys.append(self._following(len(self.keys) + 1))
        if raw(private.public_key()) != raw(self.keys[-1].public):
            raise ValueError(f"{self._files.path(number).name} is not the key that its public half says")
        self._newest = private

    def sign(self, message: bytes) -> bytes:
        """A signature with the newest key."""
        return self._newest.sign(message)

    @property
    def newest(self) -> SigningKey:
        return self.keys[-1]

    def public(self, wanted: str) -> Ed25519PublicKey | None:
        """The public half of a key by its id, however old."""
        return next((key.public for key in self.keys if key.key_id == wanted), None)

    def after(self, held: str) -> list[SigningKey]:
        """The keys after the one with the id `held`. Raises ValueError for an id that is not one of these keys."""
        ids = [key.key_id for key in self.keys]
        if held not in ids:
            raise ValueError("the audit log was signed with another key than that in audit.keys")
        return self.keys[ids.index(held) + 1 :]

    def _first(self) -> Ed25519PublicKey:
        """The first public key, which auditors have, written beside the private one when that is made."""
        path = self._directory / PUBLIC_KEY
        private = self._files.path(1)
        if not private.exists():
            return load_public_key(path)
        public = _private(private).public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        if key_file.obtain(path, lambda: pem, mode=0o644) != pem:
            raise ValueError(f"{PUBLIC_KEY} is not the public half of {PRIVATE_KEY}")
        return public

    def _following(self, number: int) -> SigningKey:
        """Key `number`, endorsed by the one before. A crash may have come between the two: then it is endorsed now."""
        path = self._files.path(number).with_suffix(".json")
        before = self.keys[-1].public
        said = key_file.obtain(path, lambda: self._endorse(number, before), mode=0o644)
        stated = _stated(said)
        if stated is None:
            raise ValueError(f"{path.name} is not an endorsement")
        endorsement = Endorsement.read(stated, before)
        if canonical(endorsement.fields()) != said:
            raise ValueError(f"{path.name} is not spelled as the gateway writes it")
        return SigningKey(endorsement.public, endorsement)

    def _endorse(self, number: int, before: Ed25519PublicKey) -> bytes:
        by = _private(self._files.path(number - 1))
        statement = _statement(key_id(before), _private(self._files.path(number)).public_key())
        return canonical({**statement, "signature": by.sign(_CONTEXT + canonical(statement)).hex()})


def _stated(said: bytes) -> dict[str, Any] | None:
    try:
        stated = json.loads(said.decode())
    except (ValueError, RecursionError):
        return None
    return stated if isinstance(stated, dict) else None


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file. Raises OSError or ValueError."""
    pem = path.read_bytes()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path.name} is not a public key, PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path.name} is not an Ed25519 public key")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of SHA-256 of the raw public key."""
    return hashlib.sha256(raw(key)).hexdigest()[:16]


def raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _statement(by: str, public: Ed25519PublicKey) -> dict[str, Any]:
    return {"by": by, "key": key_id(public), "public": raw(public).hex()}


def _private(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path.name} is not an Ed25519 private key")
    return key


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
