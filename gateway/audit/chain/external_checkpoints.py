"""The checkpoints of a log, read side by side with it: those in its directory, and external ones that were kept
elsewhere.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit.chain import canonical
from gateway.audit.chain.checkpoint import SignedCheckpoint, in_order, parse, unreadable
from gateway.audit.chain.checkpoint_bound import CheckpointBound, dated
from gateway.audit.chain.hash_chain import BrokenChain, Link
from gateway.audit.chain.segments import MAX_LINE, regular
from gateway.audit.keys.signing import SIGNING_KEY, Endorsement, key_id

_BEGINNINGS: Final = frozenset(("genesis", "segment"))


class ExternalCheckpoints:
    """Follows a log record by record, with the key in force there. Raises BrokenChain at the first bad record.

    The log may grow meanwhile. A checkpoint is on disk before the next record is, so it is looked up when that record
    has been read. When the log ends early, only checkpoints that were there at the beginning count as missing.
    """

    def __init__(self, path: Path, key: Ed25519PublicKey, kept: Sequence[SignedCheckpoint] = ()) -> None:
        """Raises OSError. The log must contain the checkpoints `kept`; those of other writers are ignored."""
        self.key = key
        self.writer = ""
        """The random name of the writer, from the genesis."""
        self.good = 0
        """Checkpoints of the log that match."""
        self.matched = 0
        """External checkpoints that match."""
        self.bound = CheckpointBound()
        self._name: object = None
        self._candidates = kept
        self._kept: deque[SignedCheckpoint] = deque()
        self._lines = _Lines(path)
        self._next: SignedCheckpoint | None = None
        self._before: SignedCheckpoint | None = None
        self._unreadable: BrokenChain | None = None

    def add(self, line: bytes, link: Link, *, continues: Link | None = None) -> None:
        """The log has come to `link` with `line`, which has no newline. `continues` is the link with which a later
        segment begins: the log ended there.
        """
        time, content = canonical.read(line, link.seq)
        event = str(content.get("event")) if content is not None else ""
        if link.seq == 0:
            self._begin(content or {})
        elif continues is not None or event in _BEGINNINGS:
            self._go_on(content or {}, link.seq, continues)
        if content is not None and event == SIGNING_KEY:
            dated(link.seq, time)
            self.key = successor(content, link.seq, self.key)
        else:
            self.bound.add(link.seq, time, event)

    def settle(self, last: Link) -> None:
        """The log goes on after `last`, or ends there: the checkpoints up to it are compared."""
        if self._next is None:
            self._next = self._read()
        while self._next is not None and self._next.seq <= last.seq:
            signed = self._next
            self._compare(signed, last)
            self.good += 1
            self.bound.signed(last.seq, signed.checkpoint.promise)
            self._next = self._read()
        while self._kept and self._kept[0].seq <= last.seq:
            self._compare(self._kept.popleft(), last)
            self.matched += 1

    def rest(self, records: int, *, whole: bool) -> BrokenChain | None:
        """The error for checkpoints that a log of `records` did not come to. `whole`: the log was valid to its end."""
        if self._unreadable is not None or not whole:
            return self._unreadable
        due = ([self._next] if self._next is not None and self._lines.old else []) + list(self._kept)
        try:
            for signed in due:
                signed.check([self.key])
        except BrokenChain as error:
            return error
        if due:
            return BrokenChain(records, f"missing: a checkpoint covers the log as far as record {due[-1].seq}")
        return self.bound.missing("when the log began") if records > 1 and not self.good else None

    def close(self) -> None:
        self._lines.close()

    def _begin(self, genesis: Mapping[str, Any]) -> None:
        """Raises BrokenChain unless the log begins, with the key that the auditor has."""
        if genesis.get("event") != "genesis":
            raise BrokenChain(0, "not the genesis of a log")
        if genesis.get("key") != key_id(self.key):
            raise BrokenChain(0, f"the log begins with another key, {str(genesis.get('key'))[:16]}")
        self.writer = str(genesis.get("writer"))
        self._name = genesis.get("name")
        mine = (signed for signed in self._candidates if signed.checkpoint.writer == self.writer)
        self._kept.extend(sorted(mine, key=lambda signed: signed.seq))

    def _go_on(self, said: Mapping[str, Any], seq: int, continues: Link | None) -> None:
        """Raises BrokenChain unless `said` begins a segment of this log, and stands at the beginning of one."""
        if continues is None or said.get("event") != "segment":
            raise BrokenChain(seq, "only the first record of a segment names the link that it continues")
        expected = {"previous": continues.hash.hex(), "writer": self.writer, "key": key_id(self.key)}
        if said.get("name") != self._name or {name: said.get(name) for name in expected} != expected:
            raise BrokenChain(seq, "begins a segment of another log, or of another place in this one")

    def _compare(self, signed: SignedCheckpoint, link: Link) -> None:
        signed.check([self.key])
        found = signed.checkpoint.link
        if found.seq != link.seq:
            raise BrokenChain(found.seq, "its checkpoint does not stand where it was written")
        if found.hash != link.hash:
            why = "not what its checkpoint was signed for: it or one since the last checkpoint was altered"
            raise BrokenChain(link.seq, why)

    def _read(self) -> SignedCheckpoint | None:
        try:
            line = self._lines.next() if self._unreadable is None else None
            if line is None:
                return None
            self._before = in_order(parse(line), self._before)
            return self._before
        except BrokenChain as error:
            self._unreadable = error
            return None


class _Lines:
    """The whole lines of a file that may grow meanwhile."""

    def __init__(self, path: Path) -> None:
        self._file = regular(path).open("rb") if path.exists() else None
        self._size = path.stat().st_size if self._file else 0
        self._read = 0

    @property
    def old(self) -> bool:
        """Whether the last line was there at the beginning."""
        return self._read <= self._size

    def next(self) -> bytes | None:
        """The next line, or None where there is none yet. Raises BrokenChain for bytes at the end that begin
        no line.
        """
        line = self._file.readline(MAX_LINE) if self._file else b""
        if line.endswith(b"\n"):
            self._read += len(line)
            return line
        if self._file and line:
            if not canonical.unfinished(line) or any(piece.strip(b"\x00") for piece in self._pieces(self._file)):
                raise unreadable()
            self._file.seek(self._read)
        return None

    def _pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """The bytes after MAX_LINE bytes without a line's end."""
        return iter(lambda: file.readline(MAX_LINE), b"")

    def close(self) -> None:
        if self._file:
            self._file.close()


def kept(lines: Iterable[str]) -> list[SignedCheckpoint]:
    """The checkpoints among `lines`: lines of checkpoints.jsonl, or lines of a process log that contain one.

    Raises ValueError where there is none, or one is not spelled exactly as the gateway writes it.
    """
    found = [said for line in lines if (said := _said(line)) is not None]
    try:
        made = [parse(said.encode("utf-8", "surrogatepass")) for said in found]
    except BrokenChain as error:
        raise ValueError(error.why) from None
    if not made:
        raise ValueError("the input has no checkpoint")
    return made


def _said(line: str) -> str | None:
    """The part of a line that should be a checkpoint: all of it, except in a process log. Other lines of such a log,
    JSON or not, are ignored; but one that mentions a signature and is not JSON was a checkpoint once.

    Raises ValueError for a line that is not text.
    """
    if not line.removesuffix("\n").replace("\t", "").isprintable():
        raise ValueError("a line of the input is not text of a log")
    try:
        stated = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return line if '"signature' in line and line.endswith("\n") else None
    if not isinstance(stated, dict):
        return None
    if "checkpoint" in stated:
        return str(stated["checkpoint"])
    return line if "signature" in stated else None


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a repeated member: readers differ on the one that counts."""
    made = dict(members)
    if len(made) < len(members):
        raise ValueError
    return made


def successor(stated: Mapping[str, Any], seq: int, by: Ed25519PublicKey) -> Ed25519PublicKey:
    """The key that record `seq` names, endorsed by the key before it, `by`. Raises BrokenChain."""
    try:
        made = Endorsement.read(stated, by)
    except ValueError as error:
        raise BrokenChain(seq, f"names {error}") from None
    if stated.keys() != {"event", "time", *made.fields()}:
        raise BrokenChain(seq, "names a signing key and has other fields too")
    return made.public
