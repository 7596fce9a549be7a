"""Signed checkpoints: how far the log had come, said by the holder of the audit key (Ed25519).

One canonical JSON object a line in checkpoints.jsonl: `hash` and `seq` of the record reached, `key`, `time`, `writer`
and `signature`, which covers the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway import keyfile
from gateway.audit.chain import Broken, Link
from gateway.audit.record import canonical

FILE: Final = "checkpoints.jsonl"
PRIVATE_KEY: Final = "audit-key.pem"
PUBLIC_KEY: Final = "audit-key.pub.pem"
_CONTEXT: Final = b"meshgate audit checkpoint v1\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement: at `time` (microseconds since the Unix epoch) the log of `writer` stood at `link`."""

    link: Link
    time: int
    writer: str


class Signer:
    """Makes checkpoints."""

    def __init__(self, keys: Path) -> None:
        """Reads the key in directory `keys` or makes it, the public half beside it. Raises OSError or ValueError."""
        key = serialization.load_pem_private_key(keyfile.obtain(keys / PRIVATE_KEY, _new_key), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{PRIVATE_KEY} is not an Ed25519 private key")
        self._key = key
        self.public_key = key.public_key()
        self.key_id = key_id(self.public_key)
        public = self.public_key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if keyfile.obtain(keys / PUBLIC_KEY, lambda: public, mode=0o644) != public:
            raise ValueError(f"{PUBLIC_KEY} is not the public half of {PRIVATE_KEY}")

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The checkpoint as a line, with its newline."""
        statement = _statement(checkpoint, self.key_id)
        signature = self._key.sign(_CONTEXT + canonical(statement))
        return canonical({**statement, "signature": signature.hex()}) + b"\n"


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of SHA-256 of the raw public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Reads a PEM file. Raises OSError or ValueError."""
    key = serialization.load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")
    return key


def check(line: bytes, key: Ed25519PublicKey) -> Checkpoint:
    """The checkpoint that `line` holds, if `key` signed it. Raises Broken, of seq -1 where not even seq is readable."""
    checkpoint, named, signature = _parse(line)
    if named != key_id(key):
        raise Broken(checkpoint.link.seq, f"its checkpoint was signed with another key, {named[:16]}")
    try:
        key.verify(signature, _CONTEXT + canonical(_statement(checkpoint, named)))
    except InvalidSignature:
        raise Broken(checkpoint.link.seq, "the signature of its checkpoint is wrong") from None
    return checkpoint


def _parse(line: bytes) -> tuple[Checkpoint, str, bytes]:
    try:
        stated = json.loads(line)
        reached = Link(int(stated["seq"]), bytes.fromhex(stated["hash"]))
        checkpoint = Checkpoint(reached, int(stated["time"]), str(stated["writer"]))
        return checkpoint, str(stated["key"]), bytes.fromhex(stated["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Broken(-1, "a line of the checkpoints is not a checkpoint") from None


def _statement(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    return {
        "hash": checkpoint.link.hash.hex(),
        "key": key,
        "seq": checkpoint.link.seq,
        "time": checkpoint.time,
        "writer": checkpoint.writer,
    }


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
