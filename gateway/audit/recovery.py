"""What a log is found to be when it is opened: where it stands, and what a crash left unfinished.

A crash, at whatever byte, leaves whole lines and at most a part of one at the end, which no caller was told of. That
part is moved to a `.torn` file and named in the next record. Nor does it leave more without a checkpoint than the last
one promised. Anything else that is wrong was not a crash: the log is then left as it is, for `meshgate audit verify`,
and the gateway does not start, because its next checkpoint would vouch for what it found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.audit import canonical, chain, segments
from gateway.audit.chain import Broken, Link
from gateway.audit.checkpoint import Checkpoint, SignedCheckpoint, in_order, parse
from gateway.audit.coverage import Coverage
from gateway.audit.disk import OWNER_ONLY, AppendFile, Disk
from gateway.audit.signing import SIGNING_KEY, SigningKeys
from meshgate.runtime import keyfile

_MOST_TORN: Final = 16 * 1024 * 1024
"""Of a part of a line and of blocks that were never filled."""


@dataclass(frozen=True, slots=True)
class Torn:
    """The unfinished end of a segment, and where it is now."""

    file: str
    size: int
    sha256: str

    def fields(self) -> dict[str, Any]:
        """For the record that says so."""
        return {"torn_bytes": self.size, "torn_file": self.file, "torn_sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Found:
    """Where a log stands."""

    last: Link
    segment: int
    """The number of the segment to go on with; it may not exist yet or be empty."""
    origin: Origin | None
    """None for a new log."""
    torn: Torn | None


@dataclass(frozen=True, slots=True)
class Origin:
    """What the first record of a segment says."""

    start: Link
    """What it continues."""
    writer: str
    key: str
    """The id of the key that signs from there on; a later record may name its successor."""
    time: int
    """Microseconds since the Unix epoch."""


def recover(directory: Path, disk: Disk, covered: Checkpoint | None) -> Found:
    """Looks at the last segment, all of it, and moves an unfinished line aside. Raises OSError and Broken.

    `covered` is the last checkpoint: a log that does not reach it was cut, and one that goes too far beyond it, or has
    none and more than its genesis, lost checkpoints.
    """
    found = segments.listed(directory)
    for expected, (counted, _) in enumerate(found, 1):
        if counted != expected:
            raise Broken(-1, f"missing: {segments.name(expected)}")
    number = found[-1][0] if found else 1
    torn = _move_torn(found[-1][1], disk) if found else None
    whole = [path for _, path in found if path.stat().st_size]
    if not whole:
        last, origin = chain.ORIGIN, None
    else:
        last, origin = _follow(whole[-1], covered)
    if covered is None and last.seq > 0:
        raise Coverage().missing("when the log began")
    if covered is not None and covered.link.seq > last.seq:
        raise Broken(last.seq + 1, f"missing: the last checkpoint covers the log as far as record {covered.link.seq}")
    return Found(last, number, origin, torn)


def checkpoints(path: Path, disk: Disk, keys: SigningKeys) -> tuple[AppendFile, Checkpoint | None]:
    """The file of checkpoints, cut to whole lines, and the last of them. Raises OSError and Broken."""
    file = AppendFile(path, disk)
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
    return file, None if last is None else last.checkpoint


def _last_of(path: Path, torn: int | None) -> SignedCheckpoint | None:
    """The last of the whole lines, each of which is a checkpoint and comes after the one before. Raises Broken."""
    last, read = None, 0
    for line in segments.lines(path):
        read += len(line)
        if torn is not None and read > torn:
            break
        last = in_order(parse(line), last)
    return last


def _torn_from(path: Path) -> int | None:
    """Where an unfinished last line begins, or None. Raises Broken for what no crash leaves at the end of a file."""
    start = segments.torn_from(path)
    if start is not None and not canonical.unfinished(_from(path, start)):
        raise Broken(-1, f"{path.name} ends with bytes that are no part of a line of the gateway's")
    return start


def _from(path: Path, start: int) -> bytes:
    """Raises Broken for more than a crash leaves."""
    with path.open("rb") as file:
        file.seek(start)
        rest = file.read(_MOST_TORN + 1)
    if len(rest) > _MOST_TORN:
        raise Broken(-1, f"{path.name} ends with a line that is longer than any of the gateway's")
    return rest


def _move_torn(path: Path, disk: Disk) -> Torn | None:
    start = _torn_from(path)
    if start is None:
        return None
    rest = _from(path, start)
    digest = hashlib.sha256(rest).hexdigest()
    aside = path.with_name(f"{path.stem}-{start}-{digest[:8]}.torn")
    keyfile.replace(aside, rest, mode=OWNER_ONLY)
    segment = AppendFile(path, disk)
    try:
        segment.cut(start)
    finally:
        segment.close()
    return Torn(aside.name, len(rest), digest)


def _follow(path: Path, covered: Checkpoint | None) -> tuple[Link, Origin]:
    """Where the segment ends, and what it began with. Raises Broken, also where it contradicts the checkpoint."""
    stripped = _stripped(path)
    first = next(stripped)
    origin = _origin(first)
    last, key, coverage = origin.start, origin.key, _covered(origin, covered)
    for line in _chained(first, stripped):
        last = chain.after(line, last)
        time, content = canonical.read(line, last.seq)
        event = str(content.get("event")) if content is not None else ""
        if covered is not None:
            _compare(last, covered.link)
        if content is not None and event == SIGNING_KEY:
            key = _named(content, last.seq)
        elif last.seq > coverage.seq:
            coverage.add(last.seq, time, event)
    return last, replace(origin, key=key)


def _covered(origin: Origin, covered: Checkpoint | None) -> Coverage:
    """What the last checkpoint says of the segment that begins there: at least the one before ended covered."""
    coverage = Coverage()
    if covered is not None:
        coverage.signed(covered.link.seq, covered.promise)
        _compare(origin.start, covered.link)
        if covered.promise is not None and covered.link.seq < origin.start.seq:
            raise coverage.missing("before the segment ended")
    return coverage


def _compare(found: Link, signed: Link) -> None:
    if found.seq == signed.seq and found.hash != signed.hash:
        raise Broken(found.seq, "not what its checkpoint was signed for")


def _named(content: Mapping[str, Any], seq: int) -> str:
    key = content.get("key")
    if not isinstance(key, str):
        raise Broken(seq, "names no signing key")
    return key


def _origin(first: bytes) -> Origin:
    try:
        line = json.loads(first.decode())
        record, seq = line["record"], int(line["seq"])
        genesis = record["event"] == "genesis"
        start = chain.ORIGIN if genesis else Link(seq - 1, bytes.fromhex(record["previous"]))
        return Origin(start, str(record["writer"]), str(record["key"]), int(record["time"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Broken(0, "the last segment does not begin with a record of where it goes on") from None


def _stripped(path: Path) -> Iterator[bytes]:
    return (line.removesuffix(b"\n") for line in segments.lines(path))


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
