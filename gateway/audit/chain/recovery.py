"""Recovery: the state of a log when it is opened, and what a crash left unfinished.

A crash, at whatever byte, leaves whole lines and at most a part of one at the end, whose caller had no outcome yet.
That part is moved to a `.torn` file and named in the next record. A crash leaves no more without a checkpoint than the
last one promised. Anything else that is wrong was not a crash. Then the log stays as it is, for `meshgate audit
verify`, and the gateway does not start, because its next checkpoint would vouch for a changed log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.audit.chain import canonical, hash_chain, segments
from gateway.audit.chain.checkpoint import SignedCheckpoint, in_order, parse
from gateway.audit.chain.checkpoint_bound import CheckpointBound, dated
from gateway.audit.chain.external_checkpoints import successor
from gateway.audit.chain.fsync import AppendFile, Disk
from gateway.audit.chain.hash_chain import BrokenChain, Link
from gateway.audit.keys.signing import SIGNING_KEY, SigningKeys, key_id
from meshgate.runtime.files import atomic_write

_BEGINNINGS: Final = frozenset(("genesis", "segment"))
_MOST_TORN: Final = 16 * 1024 * 1024
"""Bytes of a part of a line and of blocks that were never filled."""


@dataclass(frozen=True, slots=True)
class PartialRecord:
    """The unfinished end of a segment, and the file to which it was moved."""

    file: str
    size: int
    sha256: str

    def fields(self) -> dict[str, Any]:
        """The fields for the record that reports it."""
        return {"torn_bytes": self.size, "torn_file": self.file, "torn_sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class TailState:
    """Where a log ends."""

    last: Link
    segment: int
    """The number of the segment to append to; it may be empty or not exist yet."""
    origin: ChainStart | None
    """None for a new log."""
    torn: PartialRecord | None


@dataclass(frozen=True, slots=True)
class ChainStart:
    """The content of the first record of a segment."""

    start: Link
    """The link that it continues."""
    writer: str
    key: str
    """The id of the key that signs from there on; a later record may name the next key."""
    name: str
    """The name of the writer's part of the log; empty where the log has one writer."""
    time: int
    """Microseconds since the Unix epoch."""


def recover(
    directory: Path, disk: Disk, covered: SignedCheckpoint | None, keys: SigningKeys, writer: str = ""
) -> TailState:
    """Reads the last segment of the log of `writer`, and the beginning and end of the others, and moves an unfinished
    line aside. Raises OSError and BrokenChain.

    `covered` is the last checkpoint. A log that does not reach it was cut. A log that goes too far beyond it, or has
    none and more than its genesis, lost checkpoints.
    """
    found = segments.listed(directory)
    for expected, (counted, _) in enumerate(found, 1):
        if counted != expected:
            raise BrokenChain(-1, f"missing: {segments.name(expected)}")
    torn = _torn_of(found, disk)
    whole = [path for _, path in found if path.stat().st_size]
    _check_joints(found, whole)
    last, origin = _follow(whole[-1], covered, keys) if whole else (hash_chain.BEFORE_GENESIS, None)
    if origin is not None and origin.name != writer:
        raise BrokenChain(0, f"the log of another writer, {origin.name or 'one without a name'}")
    if covered is None and last.seq > 0:
        raise CheckpointBound().missing("when the log began")
    if covered is not None and covered.seq > last.seq:
        raise BrokenChain(last.seq + 1, f"missing: the last checkpoint covers the log as far as record {covered.seq}")
    return TailState(last, _to_go_on_with(found, whole, last, covered), origin, torn)


def _torn_of(found: list[tuple[int, Path]], disk: Disk) -> PartialRecord | None:
    """The line that a crash left unfinished. A segment that could not be begun may be there, empty, after the one that
    has it.
    """
    torn = None
    for _, path in reversed(found):
        torn = _move_torn(path, disk) or torn
        if path.stat().st_size:
            break
    return torn


def _check_joints(found: list[tuple[int, Path]], whole: list[Path]) -> None:
    """Raises BrokenChain unless each segment continues where the one before it ended, and the first begins a log.
    Records between the ends are not read: a checkpoint covers them, and `verify` reads them.
    """
    if len(whole) < len(found) - 1 or any(path != kept for (_, path), kept in zip(found, whole, strict=False)):
        empty = next(path for _, path in found if path not in whole)
        raise BrokenChain(-1, f"missing: {empty.name} is empty")
    last = hash_chain.BEFORE_GENESIS
    for path in whole:
        if _origin(next(_stripped(path))).start != last:
            raise BrokenChain(last.seq + 1, f"missing: {path.name} does not go on where the log before it ended")
        last = _end(path)


def _end(path: Path) -> Link:
    """The link at the end of a segment, as its last line states it."""
    try:
        line = json.loads(next(segments.lines_reversed(path)))
        return Link(int(line["seq"]), bytes.fromhex(line["hash"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BrokenChain(-1, f"{path.name} does not end with a record") from None


def _to_go_on_with(
    found: list[tuple[int, Path]], whole: list[Path], last: Link, covered: SignedCheckpoint | None
) -> int:
    """The number of a segment. A segment that could not be begun is not begun while records before it are uncovered."""
    begun = len(whole) if covered is None or covered.seq < last.seq else len(found)
    return max(1, begun)


def checkpoints(path: Path, disk: Disk, keys: SigningKeys) -> tuple[AppendFile, SignedCheckpoint | None]:
    """The file of checkpoints, cut to whole lines, and the last checkpoint. Raises OSError and BrokenChain."""
    file = AppendFile(segments.regular(path), disk)
    try:
        torn = _torn_from(path)
        last = _last_of(path, torn)
        if last is not None:
            last.check([key.public for key in keys.keys])
        if torn is not None:
            file.cut(torn)
    except BaseException:
        file.close()
        raise
    return file, last


def _last_of(path: Path, torn: int | None) -> SignedCheckpoint | None:
    """The last whole line, where each is a checkpoint and comes after the one before. Raises BrokenChain."""
    last, read = None, 0
    for line in segments.lines(path):
        read += len(line)
        if torn is not None and read > torn:
            break
        last = in_order(parse(line), last)
    return last


def _torn_from(path: Path) -> int | None:
    """Where an unfinished last line begins, or None. Raises BrokenChain where the end is not what a crash leaves."""
    start = segments.torn_from(path)
    if start is not None and not canonical.unfinished(_from(path, start)):
        raise BrokenChain(-1, f"{path.name} ends with bytes that are not part of a line as the gateway writes it")
    return start


def _from(path: Path, start: int) -> bytes:
    """The rest of a file from `start`. Raises BrokenChain for more than a crash leaves."""
    with path.open("rb") as file:
        file.seek(start)
        rest = file.read(_MOST_TORN + 1)
    if len(rest) > _MOST_TORN:
        raise BrokenChain(-1, f"{path.name} ends with a line that is longer than the gateway writes")
    return rest


def _move_torn(path: Path, disk: Disk) -> PartialRecord | None:
    start = _torn_from(path)
    if start is None:
        return None
    rest = _from(path, start)
    digest = hashlib.sha256(rest).hexdigest()
    aside = path.with_name(f"{path.stem}-{start}-{digest[:8]}.torn")
    atomic_write.write(aside, rest, mode=atomic_write.OWNER_ONLY)
    segment = AppendFile(path, disk)
    try:
        segment.cut(start)
    finally:
        segment.close()
    return PartialRecord(aside.name, len(rest), digest)


def _follow(path: Path, covered: SignedCheckpoint | None, keys: SigningKeys) -> tuple[Link, ChainStart]:
    """The end of the segment, and its start. Raises BrokenChain, also where it contradicts the checkpoint."""
    stripped = _stripped(path)
    first = next(stripped)
    origin = _origin(first)
    last, key, bound = origin.start, origin.key, _covered(origin, covered)
    if covered is not None and covered.seq == last.seq:
        _check_signer(covered, origin, key)
    for line in _chained(first, stripped):
        last = hash_chain.after(line, last)
        time, content = canonical.read(line, last.seq)
        event = str(content.get("event")) if content is not None else ""
        if last.seq > origin.start.seq + 1 and event in _BEGINNINGS:
            raise BrokenChain(last.seq, "begins a segment within another")
        if content is not None and event == SIGNING_KEY:
            dated(last.seq, time)
            key = _next_key(content, last.seq, key, keys)
        elif last.seq > bound.seq:
            bound.add(last.seq, time, event)
        if covered is not None and covered.seq == last.seq:
            _compare(last, covered.checkpoint.link)
            _check_signer(covered, origin, key)
    return last, replace(origin, key=key)


def _covered(origin: ChainStart, covered: SignedCheckpoint | None) -> CheckpointBound:
    """The bound from the last checkpoint for a segment that begins there: the segment before ended covered."""
    bound = CheckpointBound()
    if covered is not None:
        bound.signed(covered.seq, covered.checkpoint.promise)
        _compare(origin.start, covered.checkpoint.link)
        if covered.checkpoint.promise is not None and covered.seq < origin.start.seq:
            raise bound.missing("before the segment ended")
    return bound


def _compare(found: Link, signed: Link) -> None:
    if found.seq == signed.seq and found.hash != signed.hash:
        raise BrokenChain(found.seq, "not what its checkpoint was signed for")


def _check_signer(covered: SignedCheckpoint, origin: ChainStart, key: str) -> None:
    """Raises BrokenChain unless the key in force at its record signed the checkpoint, for the writer of this log."""
    if covered.key != key:
        raise BrokenChain(covered.seq, f"its checkpoint was signed with another key, {covered.key[:16]}")
    if covered.checkpoint.writer != origin.writer:
        raise BrokenChain(covered.seq, "its checkpoint is for another writer's log")


def _next_key(content: Mapping[str, Any], seq: int, key: str, keys: SigningKeys) -> str:
    """The id of the key that record `seq` names after `key`. Raises BrokenChain unless `key` endorsed it."""
    public = keys.public(key)
    if public is None:
        raise BrokenChain(seq, "the key before it is not in audit.keys")
    return key_id(successor(content, seq, public))


def _origin(first: bytes) -> ChainStart:
    try:
        line = json.loads(first.decode())
        record, seq = line["record"], int(line["seq"])
        genesis = record["event"] == "genesis"
        start = hash_chain.BEFORE_GENESIS if genesis else Link(seq - 1, bytes.fromhex(record["previous"]))
        if record["event"] not in _BEGINNINGS:
            raise ValueError
        name = str(record.get("name", ""))
        return ChainStart(start, str(record["writer"]), str(record["key"]), name, int(record["time"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BrokenChain(0, "a segment does not begin with a record of the link that it continues") from None


def _stripped(path: Path) -> Iterator[bytes]:
    return (line.removesuffix(b"\n") for line in segments.lines(path))


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
