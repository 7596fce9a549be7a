"""Signed checkpoints: how far the log had come, signed with the signing key (Ed25519).

One canonical JSON object per line in checkpoints.jsonl: `hash` and `seq` of the record reached, `key`, `time`,
`writer`, the bound of what may follow before the next checkpoint (`next_records`, `next_us`; see
gateway.audit.chain.checkpoint_bound) and `signature`, which covers the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit.chain.checkpoint_bound import Promise
from gateway.audit.chain.hash_chain import BrokenChain, Link
from gateway.audit.keys.signing import SigningKeys, key_id
from gateway.audit.record import canonical

FILE: Final = "checkpoints.jsonl"
_CONTEXT: Final = b"meshgate audit checkpoint v1\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A statement: at `time` (microseconds since the Unix epoch) the log of `writer` ended at `link`."""

    link: Link
    time: int
    writer: str
    promise: Promise | None = None
    """The bound of what may follow before the next checkpoint. Old checkpoints have none."""

    def signed(self, keys: SigningKeys) -> bytes:
        """The checkpoint as a line, with its newline, signed with the newest key."""
        statement = self._statement(keys.newest.key_id)
        signature = keys.sign(_CONTEXT + canonical(statement))
        return canonical({**statement, "signature": signature.hex()}) + b"\n"

    def _statement(self, key: str) -> dict[str, Any]:
        promised = self.promise
        return {
            "hash": self.link.hash.hex(),
            "key": key,
            "seq": self.link.seq,
            "time": self.time,
            "writer": self.writer,
            **({"next_records": promised.records, "next_us": promised.microseconds} if promised else {}),
        }


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint as it was read: nothing in it is trusted before `check`."""

    checkpoint: Checkpoint
    key: str
    signature: bytes

    @property
    def seq(self) -> int:
        """The number of the record that it covers last."""
        return self.checkpoint.link.seq

    @property
    def line(self) -> bytes:
        """The line as the gateway writes it, without its newline."""
        return canonical({**self.checkpoint._statement(self.key), "signature": self.signature.hex()})  # noqa: SLF001 - its own class

    def check(self, keys: Sequence[Ed25519PublicKey]) -> None:
        """Raises BrokenChain unless one of `keys` signed it."""
        key = next((key for key in keys if key_id(key) == self.key), None)
        if key is None:
            raise BrokenChain(self.seq, f"its checkpoint was signed with another key, {self.key[:16]}")
        try:
            key.verify(self.signature, _CONTEXT + canonical(self.checkpoint._statement(self.key)))  # noqa: SLF001 - its own class
        except InvalidSignature:
            raise BrokenChain(self.seq, "the signature of its checkpoint is invalid") from None


def parse(line: bytes) -> SignedCheckpoint:
    """The checkpoint in `line`, with its newline or without. Raises BrokenChain, of seq -1, where the line is not
    spelled exactly as the gateway writes it: what has two spellings has two readings.
    """
    signed = _parsed(line)
    if signed.line != line.removesuffix(b"\n"):
        raise unreadable()
    return signed


def unreadable() -> BrokenChain:
    """The error for a line of checkpoints that is not a checkpoint."""
    return BrokenChain(-1, "a line of the checkpoints is not a checkpoint exactly as the gateway writes it")


def in_order(signed: SignedCheckpoint, before: SignedCheckpoint | None) -> SignedCheckpoint:
    """`signed`, if it may follow `before`: it covers more, or has another bound. Raises BrokenChain."""
    if before is not None and signed.seq == before.seq and signed.checkpoint.promise == before.checkpoint.promise:
        raise BrokenChain(signed.seq, "its checkpoint is repeated")
    if before is not None and signed.seq < before.seq:
        raise BrokenChain(signed.seq, "its checkpoint does not stand where it was written")
    return signed


def _parsed(line: bytes) -> SignedCheckpoint:
    try:
        stated = json.loads(line.decode())
        reached = Link(int(stated["seq"]), bytes.fromhex(stated["hash"]))
        promise = Promise(int(stated["next_records"]), int(stated["next_us"])) if "next_us" in stated else None
        checkpoint = Checkpoint(reached, int(stated["time"]), str(stated["writer"]), promise)
        return SignedCheckpoint(checkpoint, str(stated["key"]), bytes.fromhex(stated["signature"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise unreadable() from None
