"""One thing that JSON spells in many ways is believed in one alone: that in which the gateway writes it.

Whoever cuts a log at a checkpoint can chain on what they like, and needs no key for it. Each spelling here would show
one record to one reader and another to the next, or hide from the promise of the next checkpoint when it was made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway.audit import AuditRecord
from gateway.audit import record as records
from gateway.audit.chain import canonical, hash_chain
from gateway.audit.chain.checkpoint import FILE
from gateway.audit.chain.external_checkpoints import kept
from gateway.audit.chain.hash_chain import BEFORE_GENESIS, BrokenChain, Link
from gateway.audit.tools import match, tail
from gateway.audit.tools.search import UNREADABLE, Query, search
from meshgate.cli.main import app
from meshgate.runtime.config import ConfigError
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import Clock, FastDisk

Change = Callable[[bytes], bytes]

FORGED: Final = 23
"""A record that no checkpoint covers: those are after 0, 10 and 20."""


def swap(old: bytes, new: bytes) -> Change:
    def change(text: bytes) -> bytes:
        assert old in text
        return text.replace(old, new, 1)

    return change


def member(name: bytes) -> Change:
    """The same member once more, at the end."""

    def change(text: bytes) -> bytes:
        at = text.index(b'"' + name + b'":')
        value = text[at : text.index(b",", at)]
        return text[:-1] + b"," + value + b"}"

    return change


SPELLINGS: Final[dict[str, Change]] = {
    "an escape in a name": swap(b'"tenant"', b'"\\u0074enant"'),
    "an escape in the name of the time": swap(b'"time"', b'"\\u0074ime"'),
    "an escape in a value": swap(b'"bob"', b'"\\u0062ob"'),
    "an escaped solidus": swap(b"/meshgate", b"\\/meshgate"),
    "a capital escape": swap(b'"bob"', b'"\\u001B"'),
    "a long escape of a short one": swap(b'"bob"', b'"\\u000a"'),
    "an escape of what is no surrogate alone": swap(b'"bob"', b'"\\ud83d\\ude00"'),
    "a space after a colon": swap(b'"bob"', b' "bob"'),
    "a space before a comma": swap(b'"bob"', b'"bob" '),
    "a space at the beginning": lambda text: b" " + text,
    "a space at the end": lambda text: text + b" ",
    "a space within": swap(b'"bob"', b'\t"bob"'),
    "a carriage return at the end": lambda text: text + b"\r",
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "a member twice": member(b"subject"),
    "a member twice, with another value": lambda text: text[:-1] + b',"subject":"eve"}',
    "another order": lambda text: b'{"tenant":"acme",' + text[1:].replace(b'"tenant":"acme",', b"", 1),
    "a fraction": swap(b'"input_tokens":4', b'"input_tokens":4.0'),
    "an exponent": swap(b'"input_tokens":4', b'"input_tokens":4e0'),
    "a zero before": swap(b'"input_tokens":4', b'"input_tokens":04'),
    "a sign before": swap(b'"input_tokens":4', b'"input_tokens":+4'),
    "minus zero": swap(b'"authenticate":3', b'"authenticate":-0'),
    "more than every reader can hold": swap(b'"input_tokens":4', b'"input_tokens":9007199254740993'),
    "true": swap(b'"input_tokens":4', b'"input_tokens":true'),
    "null": swap(b'"input_tokens":4', b'"input_tokens":null'),
    "no number": swap(b'"input_tokens":4', b'"input_tokens":NaN'),
    "a list": swap(b'"input_tokens":4', b'"input_tokens":[]'),
    "an object in an object": swap(b'"authenticate":3', b'"authenticate":{"a":1}'),
    "an empty text": swap(b'"bob"', b'""'),
    "a zero that is left out": swap(b'"input_tokens":4', b'"input_tokens":0'),
    "an empty object": swap(b'"stages_us":{"authenticate":3,"forward":700}', b'"stages_us":{}'),
    "NUL": swap(b'"bob"', b'"b\x00b"'),
    "a control character": swap(b'"bob"', b'"b\x1bb"'),
    "no UTF-8": swap(b'"bob"', b'"b\xffb"'),
    "an overlong UTF-8": swap(b'"bob"', b'"b\xc0\xafb"'),
    "a surrogate in UTF-8": swap(b'"bob"', b'"b\xed\xa0\x80b"'),
    "UTF-16": lambda text: text.decode().encode("utf-16-le"),
    "bytes after it": lambda text: text + b"x",
    "NUL after it": lambda text: text + b"\x00",
    "another value after it": lambda text: text + b"{}",
    "a comma too many": lambda text: text[:-1] + b",}",
    "no comma": swap(b'"bob",', b'"bob"'),
    "single quotes": swap(b'"bob"', b"'bob'"),
    "a comment": swap(b'"bob"', b'"bob"/**/'),
    "a name that is not ASCII": swap(b'"subject"', '"sübject"'.encode()),
}
"""Each makes of a record, of a line or of a checkpoint another text, which some reader of JSON takes for the same."""

TIMELESS: Final[dict[str, Change]] = {
    "no time": lambda text: text[: text.index(b',"time"')] + b"}",
    "a time of text": swap(b'"time":1800000000000022', b'"time":"1800000000000022"'),
    "a time that is another's": lambda text: text[: text.index(b',"time"')] + b',"zone":{"time":1800000000000000}}',
    "a time of zero": swap(b'"time":1800000000000022', b'"time":0'),
    "a time before time": swap(b'"time":1800000000000022', b'"time":-1'),
}


def framed(body: bytes, last: Link, change: Change = lambda line: line) -> tuple[bytes, Link]:
    """A line of any body, under a good hash of the bytes that it has then."""
    unhashed = change(b'{"hash":"' + bytes(64) + b'",' + body)
    digest = hashlib.sha256(last.hash + b"{" + unhashed[75:]).digest()
    return unhashed.replace(bytes(64), digest.hex().encode(), 1), Link(last.seq + 1, digest)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Records 0 to 25, checkpoints at 0, 10 and 20, and then a kill."""
    return audit_log.written(tmp_path)


def forge(log: Path, change: Change) -> None:
    """Chains on what someone without a key can: from FORGED on, with good hashes."""
    lines = audit_log.segment(log).read_bytes().splitlines()
    last, made = BEFORE_GENESIS, []
    for seq, line in enumerate(lines):
        content = hash_chain.record_of(line)
        if seq == FORGED:
            content = change(content)
        body, last = framed(b'"record":' + content + b',"seq":%d}' % seq, last)
        made.append(body + b"\n")
    audit_log.segment(log).write_bytes(b"".join(made))


def refused(log: Path, seq: int) -> None:
    """Wherever the log is read it is said that it is not as it was written, and where."""
    broken = audit_log.verified(log).broken
    assert broken is not None
    assert broken.seq == seq
    before = {path: path.read_bytes() for path in log.iterdir() if path.name != "lock"}
    with pytest.raises(BrokenChain) as raised:
        audit_log.ledger(log.parent)
    assert raised.value.seq in (seq, -1)
    assert {path: path.read_bytes() for path in log.iterdir() if path.name != "lock"} == before


def shown_as_unreadable(log: Path) -> None:
    for newest_first in (True, False):
        for query in (Query(), Query(fields={"subject": "bob"}), Query(fields={"tenant": "nobody"})):
            found = list(search(log, query, newest_first=newest_first))
            unreadable = [record for record in found if record is UNREADABLE]
            assert unreadable
    assert any(record is UNREADABLE for record in tail.last(log, 10))
    with pytest.raises(ValueError, match="audit verify"):
        match.digests_of(log, f"{1:032x}")


def test_what_is_forged_without_a_change_is_believed(log: Path) -> None:
    """The other tests find the change, and not the forging."""
    forge(log, lambda content: content)
    assert audit_log.verified(log).broken is None
    assert UNREADABLE not in list(search(log, Query(), newest_first=True))
    audit_log.ledger(log.parent).close()


@pytest.mark.parametrize("change", SPELLINGS.values(), ids=SPELLINGS)
def test_a_record_that_is_spelled_otherwise(log: Path, change: Change) -> None:
    forge(log, change)
    refused(log, FORGED)
    shown_as_unreadable(log)


@pytest.mark.parametrize("change", TIMELESS.values(), ids=TIMELESS)
def test_a_record_that_does_not_say_when_it_was_made(log: Path, change: Change) -> None:
    forge(log, change)
    refused(log, FORGED)


LINES: Final[dict[str, Change]] = {
    "a member more": swap(b',"seq":23}', b',"also":1,"seq":23}'),
    "a member before": swap(b'"record":', b'"record":{},"record":'),
    "a second record": swap(b',"seq":23}', b',"record":{"time":1},"seq":23}'),
    "a second number": swap(b',"seq":23}', b',"seq":24,"seq":23}'),
    "a number with a zero before": swap(b',"seq":23}', b',"seq":023}'),
    "a number with a fraction": swap(b',"seq":23}', b',"seq":23.0}'),
    "a record of another name": swap(b'"record":', b'"\\u0072ecord":'),
    "a space": swap(b'"record":', b'"record": '),
    "a space before": swap(b'"record":', b' "record":'),
    "a record that is a list": lambda line: line[: line.index(b'{"decision')] + b'[],"seq":23}',
    "a record that is a text": lambda line: line[: line.index(b'{"decision')] + b'"{","seq":23}',
    "a carriage return": lambda line: line + b"\r",
    "a space after": lambda line: line + b" ",
    "a byte order mark": lambda line: b"\xef\xbb\xbf" + line,
    "bytes after it": lambda line: line + b'x,"seq":23}',
    "NUL after it": lambda line: line + b"\x00",
    "an empty line before": lambda line: b"\n" + line,
    "an empty line after": lambda line: line + b"\n",
}


@pytest.mark.parametrize("change", LINES.values(), ids=LINES)
def test_a_line_that_is_spelled_otherwise(log: Path, change: Change) -> None:
    whole = audit_log.segment(log).read_bytes().splitlines()
    last = Link(FORGED - 1, bytes.fromhex(json.loads(whole[FORGED - 1])["hash"]))
    body = b'"record":' + hash_chain.record_of(whole[FORGED]) + b',"seq":%d}' % FORGED
    made, _ = framed(body, last, change)
    audit_log.segment(log).write_bytes(b"\n".join([*whole[:FORGED], made, b""]))
    broken = audit_log.verified(log).broken
    assert broken is not None
    assert broken.seq in (FORGED, FORGED + 1)
    with pytest.raises(BrokenChain):
        audit_log.ledger(log.parent)
    assert any(record is UNREADABLE for record in search(log, Query(), newest_first=False))


@pytest.mark.parametrize("rest", [b"x", b"{", b'{"hash":"xyz', b'{"hash":"\r', b"\xff" * 100, b"\x00x", b"{}", b" "])
@pytest.mark.parametrize("file", ["audit-00000001.jsonl", FILE])
def test_bytes_at_the_end_that_no_crash_leaves(log: Path, file: str, rest: bytes) -> None:
    path = log / file
    path.write_bytes(path.read_bytes() + rest)
    expected = rest == b"{"  # so a line begins
    assert (audit_log.verified(log).broken is None) is expected
    if not expected:
        with pytest.raises(BrokenChain):
            audit_log.ledger(log.parent)


@pytest.mark.parametrize("file", ["audit-00000001.jsonl", FILE])
def test_blocks_that_were_never_filled_are_what_loss_of_power_leaves(log: Path, file: str) -> None:
    path = log / file
    path.write_bytes(path.read_bytes() + b'{"hash":"00' + bytes(200_000))
    assert audit_log.verified(log).broken is None
    audit_log.ledger(log.parent).close()
    assert audit_log.verified(log).broken is None


CHECKPOINTS: Final[dict[str, Change]] = {
    "an escape in a name": swap(b'"time"', b'"\\u0074ime"'),
    "an escape in a value": swap(b'"key":"', b'"key":"\\u0030'),
    "a space after a colon": swap(b'"seq":', b'"seq": '),
    "a space at the beginning": lambda line: b" " + line,
    "a space at the end": lambda line: line + b" ",
    "a carriage return at the end": lambda line: line + b"\r",
    "a byte order mark": lambda line: b"\xef\xbb\xbf" + line,
    "a member more": lambda line: line[:-1] + b',"x":1}',
    "a member twice": member(b"seq"),
    "a member twice, with another value": lambda line: line[:-1] + b',"seq":0}',
    "another order": lambda line: b'{"writer":' + line.rpartition(b',"writer":')[2][:-1] + b"," + line[1:],
    "a fraction": swap(b',"signature"', b'.0,"signature"'),
    "an exponent": swap(b',"signature"', b'e0,"signature"'),
    "a number as text": lambda line: line.replace(b'"time":', b'"time":"').replace(b',"writer"', b'","writer"'),
    "capital digits": lambda line: line.replace(
        json.loads(line)["hash"].encode(), json.loads(line)["hash"].upper().encode()
    ),
    "a capital signature": lambda line: (
        line[: line.index(b'"signature"') + 13]
        + line[line.index(b'"signature"') + 13 :].split(b'"')[0].upper()
        + line[line.index(b'"signature"') + 13 + 128 :]
    ),
    "spaces in a hash": swap(b'"hash":"', b'"hash":" '),
    "spaces in a signature": swap(b'"signature":"', b'"signature":" '),
    "NUL after it": lambda line: line + b"\x00",
    "bytes after it": lambda line: line + b"x",
    "UTF-16": lambda line: line.decode().encode("utf-16"),
    "no UTF-8": swap(b'"key":"', b'"key":"\xff'),
    "an empty line before": lambda line: b"\n" + line,
    "an empty line after": lambda line: line + b"\n",
    "the line twice": lambda line: line + b"\n" + line,
    "something else": lambda line: line + b"\n[]",
}


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("change", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_that_is_spelled_otherwise(log: Path, change: Change, at: int) -> None:
    lines = (log / FILE).read_bytes().splitlines()
    lines[at] = change(lines[at])
    (log / FILE).write_bytes(b"\n".join(lines) + b"\n")
    assert audit_log.verified(log).broken is not None
    with pytest.raises(BrokenChain):
        audit_log.ledger(log.parent)


ELSEWHERE: Final = {name: change for name, change in CHECKPOINTS.items() if " line " not in name and "else" not in name}


@pytest.mark.parametrize("change", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_checkpoint_kept_elsewhere_that_is_spelled_otherwise(log: Path, tmp_path: Path, change: Change) -> None:
    lines = (log / FILE).read_bytes().splitlines()
    (tmp_path / "alone").write_bytes(lines[0] + b"\n" + change(lines[1]) + b"\n" + lines[2] + b"\n")
    spelled = change(lines[1]).decode("utf-8", "surrogateescape")
    noted = [json.dumps({"message": "audit checkpoint", "checkpoint": said}) for said in (lines[0].decode(), spelled)]
    (tmp_path / "noted").write_text("not JSON\n" + "\n".join(noted) + "\n")
    for file in ("alone", "noted"):
        key = str(tmp_path / "keys" / "audit-key.pub.pem")
        result = CliRunner().invoke(
            app, ["audit", "verify", str(log), "--key", key, "--checkpoint", str(tmp_path / file)]
        )
        assert (result.exit_code, "not verified" in result.output) == (2, True), file


def test_a_process_log_with_other_lines_is_read(log: Path) -> None:
    lines = (log / FILE).read_text().splitlines()
    noted = ["", "E0000 chttp2", '{"message": "x"}', "[]", json.dumps({"checkpoint": lines[2]})]
    assert [signed.seq for signed in kept(noted)] == [20]
    with pytest.raises(ValueError, match="checkpoint"):
        kept([json.dumps({"checkpoint": lines[2]})[:-1] + ', "checkpoint": 1, "signature": 1}\n'])


def test_another_cadence_signs_the_same_record_again_and_that_is_in_order(tmp_path: Path) -> None:
    audit_log.ledger(tmp_path, FastDisk(), checkpoint_seconds=1).close()
    made = audit_log.ledger(tmp_path, FastDisk(), checkpoint_seconds=2)
    audit_log.abandon(made)
    seqs = [json.loads(line)["seq"] for line in (tmp_path / "audit" / FILE).read_bytes().splitlines()]
    assert seqs.count(1) == 2
    assert audit_log.verified(tmp_path / "audit").broken is None
    audit_log.ledger(tmp_path, FastDisk(), checkpoint_seconds=1).close()
    assert audit_log.verified(tmp_path / "audit").broken is None


@pytest.fixture
def succeeded(tmp_path: Path) -> Path:
    """A log that went over from a first key to a second."""
    clock = Clock()
    made = audit_log.ledger(tmp_path, FastDisk(), clock=clock, signing_key_seconds=1000, checkpoint_records=5)
    made.append([audit_log.encoded(1)])
    old = time.time() - 2000
    os.utime(tmp_path / "keys" / "audit-key.pem", (old, old))
    clock.advance(61)
    for number in range(7):
        made.append([audit_log.encoded(number)])
    made.close()
    return tmp_path / "audit"


ENDORSEMENTS: Final[dict[str, Change]] = {
    "a space": swap(b'"by":', b'"by": '),
    "an escape": swap(b'"by"', b'"\\u0062y"'),
    "a member more": lambda said: said[:-1] + b',"x":1}',
    "a member twice": member(b"by"),
    "a line end": lambda said: said + b"\n",
    "a byte order mark": lambda said: b"\xef\xbb\xbf" + said,
    "spaces in the key": swap(b'"public":"', b'"public":" '),
    "capital digits": lambda said: said.replace(
        json.loads(said)["public"].encode(), json.loads(said)["public"].upper().encode()
    ),
    "NUL": lambda said: said + b"\x00",
}


@pytest.mark.parametrize("change", ENDORSEMENTS.values(), ids=ENDORSEMENTS)
def test_an_endorsement_that_is_spelled_otherwise(succeeded: Path, tmp_path: Path, change: Change) -> None:
    path = tmp_path / "keys" / "audit-key-2.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"^audit\.keys: .*key"):
        audit_log.ledger(tmp_path, signing_key_seconds=1000)


@pytest.mark.parametrize(
    "change", [ENDORSEMENTS[name] for name in ("a member more", "spaces in the key", "capital digits")]
)
def test_a_record_of_a_key_that_is_spelled_otherwise(succeeded: Path, change: Change) -> None:
    """Canonical as JSON, and yet another text for the same key."""
    lines = audit_log.segment(succeeded).read_bytes().splitlines()
    at = next(seq for seq, line in enumerate(lines) if b'"signing_key"' in line)
    said = hash_chain.record_of(lines[at])
    stated = {**json.loads(change(said))}
    last, made = BEFORE_GENESIS, []
    for seq, line in enumerate(lines):
        content = records.canonical(stated) if seq == at else hash_chain.record_of(line)
        forged, last = hash_chain.link(content, last)
        made.append(forged)
    audit_log.segment(succeeded).write_bytes(b"".join(made))
    signed = [line for line in (succeeded / FILE).read_bytes().splitlines(True) if json.loads(line)["seq"] < at]
    (succeeded / FILE).write_bytes(b"".join(signed))
    broken = audit_log.verified(succeeded).broken
    assert broken is not None
    assert broken.seq == at


def test_the_promise_of_the_next_checkpoint_holds_without_a_key(tmp_path: Path) -> None:
    """Cut at a checkpoint, with records of hours chained on whose time is spelled otherwise."""
    log = audit_log.written(tmp_path, 25)
    lines = audit_log.segment(log).read_bytes().splitlines(keepends=True)[:21]
    last = Link(20, bytes.fromhex(json.loads(lines[-1])["hash"]))
    for number in range(900):
        content = audit_log.encoded(number * 3_600_000_000).replace(b'"time"', b'"\\u0074ime"')
        line, last = hash_chain.link(content, last)
        lines.append(line)
    audit_log.segment(log).write_bytes(b"".join(lines))
    refused(log, 21)


texts = st.text(max_size=20)
numbers = st.integers(0, 2**49)


@given(
    st.builds(
        AuditRecord,
        time=st.integers(1, 2**53 - 1),
        request_id=texts,
        event=st.sampled_from(["admitted", "ended", "refused"]),
        tenant=texts,
        subject=texts | st.just("\ud800"),
        method=texts,
        reason=texts,
        stages_us=st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), numbers, max_size=3),
        bytes_in=numbers,
        bytes_out=numbers,
        input_tokens=numbers,
        output_tokens=numbers,
        tokens_reserved=numbers,
        token_id=texts,
    )
)
def test_whatever_the_gateway_writes_is_written_as_the_gateway_writes_it(entry: AuditRecord) -> None:
    line = hash_chain.link(records.encode(entry), Link(8, bytes(32)))[0][:-1]
    if any(0xDC00 <= ord(after) < 0xE000 for text in entry.values() if isinstance(text, str) for after in text[1:]):
        return  # halves of one letter side by side, which no text from JSON or protobuf has
    found = canonical.read(line, 9)
    assert found.time == entry["time"]
    assert canonical.record(line) == json.loads(line)["record"]


@given(st.binary(max_size=300))
def test_any_bytes_are_broken_and_nothing_worse(line: bytes) -> None:
    with pytest.raises(BrokenChain):
        canonical.read(line, 0)
    canonical.unfinished(line)


def test_a_copy_of_the_log_is_as_good(log: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "keys", tmp_path / "copy" / "keys")
    shutil.copytree(log, tmp_path / "copy" / "audit")
    assert audit_log.verified(tmp_path / "copy" / "audit").broken is None
