"""Revoked tokens and subjects: out at once, cached or not; and what holds while the list can't be read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.authentication import Authenticator, RevocationConfig, revocations_of
from gateway.authentication.revocation import revocation_list as lists
from gateway.authentication.revocation.revocation_list import ListRebuild, Revocable, RevocationList, Revoked
from gateway.authentication.revocation.revocation_source import RevocationSource
from gateway.authentication.source import SourceError
from meshgate.errors import MeshError, Unavailable
from meshgate.runtime.config import ConfigError
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import ISSUER, NOW, Clock

ONE = {"issuer": ISSUER, "jti": "token-1"}
BOB = {"issuer": ISSUER, "subject": "bob"}


def write(path: Path, *entries: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({"revoked": entries}))


def spoil(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "revoked.json"
    write(made)
    return made


@pytest.fixture
def monotonic() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def authenticator(tmp_path: Path, path: Path, monotonic: Clock) -> Authenticator:
    return made(tmp_path, monotonic, file=path)


def made(tmp_path: Path, monotonic: Clock, **config: Any) -> Authenticator:
    jwks = tmp_path / "jwks.json"
    tokens.publish_all(jwks)
    revoked = revocations_of(RevocationConfig(**config), None, clock=monotonic)
    return tokens.authenticator(jwks, Clock(), monotonic=monotonic, revocations=revoked)


def outcome(authenticator: Authenticator, **changes: Any) -> str:
    try:
        return authenticator.authenticate(f"Bearer {tokens.token(**changes)}").subject
    except MeshError as error:
        return error.reason


async def revoke(authenticator: Authenticator, path: Path, *entries: Mapping[str, Any]) -> None:
    write(path, *entries)
    await authenticator.refresh()


@pytest.mark.parametrize("entry", [ONE, BOB])
@pytest.mark.parametrize("cached", [True, False])
async def test_a_revoked_token_is_refused_cached_or_not(
    authenticator: Authenticator, path: Path, entry: Mapping[str, Any], cached: bool
) -> None:
    token = f"Bearer {tokens.token()}"
    if cached:
        authenticator.authenticate(token)
    await revoke(authenticator, path, entry)
    for _ in range(2):
        with pytest.raises(MeshError) as caught:
            authenticator.authenticate(token)
        assert caught.value.reason == "TOKEN_REVOKED"


async def test_others_go_on(authenticator: Authenticator, path: Path) -> None:
    await revoke(authenticator, path, ONE, {"issuer": ISSUER, "subject": "eve"})
    assert outcome(authenticator, jti="token-2") == "bob"
    assert outcome(authenticator, sub="alice", jti=None) == "alice"


@pytest.mark.parametrize("entry", [ONE, BOB])
async def test_another_issuer_shuts_nobody_out(
    authenticator: Authenticator, path: Path, entry: Mapping[str, Any]
) -> None:
    await revoke(authenticator, path, {**entry, "issuer": "https://other.test"})
    assert outcome(authenticator) == "bob"


async def test_an_entry_of_an_issuer_that_nobody_believes_is_said_once(
    authenticator: Authenticator, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        await revoke(authenticator, path, BOB, {"issuer": f"{ISSUER}/", "subject": f"bob{number}"})
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert told.__dict__["issuers"] == [f"{ISSUER}/"]
    await revoke(authenticator, path, *({"issuer": f"i{number}", "subject": "x"} for number in range(2000)))
    *_, told = caplog.records
    assert (told.__dict__["count"], len(told.__dict__["issuers"])) == (1000, 4)


async def test_a_subject_is_out_of_every_tenant(authenticator: Authenticator, path: Path) -> None:
    await revoke(authenticator, path, BOB)
    assert outcome(authenticator, tenant="globex", jti="token-2") == "TOKEN_REVOKED"


async def test_a_token_id_is_no_subject_and_a_subject_no_token_id(authenticator: Authenticator, path: Path) -> None:
    await revoke(authenticator, path, {"issuer": ISSUER, "jti": "bob"}, {"issuer": ISSUER, "subject": "token-1"})
    assert outcome(authenticator) == "bob"


async def test_a_subject_can_come_back_with_a_new_token(authenticator: Authenticator, path: Path) -> None:
    await revoke(authenticator, path, {**BOB, "issued_before": NOW})
    assert outcome(authenticator, iat=NOW - 1) == "TOKEN_REVOKED"
    assert outcome(authenticator, iat=None) == "TOKEN_REVOKED"
    assert outcome(authenticator, iat=NOW) == "bob"


async def test_of_a_file_what_it_no_longer_says_holds_no_longer(authenticator: Authenticator, path: Path) -> None:
    token = f"Bearer {tokens.token()}"
    authenticator.authenticate(token)
    await revoke(authenticator, path, BOB)
    await revoke(authenticator, path)
    assert authenticator.authenticate(token).subject == "bob"


async def test_a_call_looks_no_file_up(
    authenticator: Authenticator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await revoke(authenticator, path, BOB)
    monkeypatch.setattr(Path, "stat", None)
    monkeypatch.setattr(Path, "open", None)
    assert outcome(authenticator) == "TOKEN_REVOKED"
    assert outcome(authenticator, sub="alice", jti="token-2") == "alice"


BAD = [
    None,
    b"",
    b"{",
    b"[]",
    b"{}",
    b'{"revoked": {}}',
    b'{"revoked": [{}]}',
    b'{"revoked": [{"jti": "x"}]}',
    b'{"revoked": [{"issuer": "i", "jti": "x", "subject": "y"}]}',
    b'{"revoked": [{"issuer": "i", "jti": "x", "issued_before": 1}]}',
    b'{"revoked": [{"issuer": "i", "jti": ""}]}',
    b'{"revoked": [{"issuer": "i", "jti": "x", "restored": true}]}',
    b'{"revoked": [{"issuer": "i", "jti": "s3cret", "surprise": "s3cret"}]}',
    b'{"revoked": []} {}',
    b"\xff" * 9,
]


@pytest.mark.parametrize("content", BAD)
async def test_a_list_that_cannot_be_read_restores_nobody(
    authenticator: Authenticator, path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    await revoke(authenticator, path, ONE)
    spoil(path, content)
    with caplog.at_level(logging.INFO):
        await authenticator.refresh()
        await authenticator.refresh()
    assert [record.message for record in caplog.records] == ["source is out, what is known stays"]
    assert outcome(authenticator) == "TOKEN_REVOKED"
    assert outcome(authenticator, jti="token-2") == "bob"
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize("content", BAD)
def test_a_list_that_cannot_be_read_stops_the_start(tmp_path: Path, path: Path, content: bytes | None) -> None:
    spoil(path, content)
    with pytest.raises(ConfigError, match=r"revocation\.file"):
        made(tmp_path, Clock(), file=path)


async def test_with_deny_nobody_is_let_in_once_the_list_is_too_old(
    tmp_path: Path, path: Path, monotonic: Clock
) -> None:
    authenticator = made(tmp_path, monotonic, file=path, on_outage="deny", outage_seconds=5)
    token = f"Bearer {tokens.token()}"
    authenticator.authenticate(token)
    spoil(path, None)
    monotonic.now += 4.9
    await authenticator.refresh()
    assert authenticator.authenticate(token).subject == "bob"
    monotonic.now += 0.1
    with pytest.raises(Unavailable) as caught:
        authenticator.authenticate(token)
    assert (caught.value.reason, caught.value.retry_after) == ("REVOCATIONS_UNAVAILABLE", 1.0)
    write(path)
    await authenticator.refresh()
    assert authenticator.authenticate(token).subject == "bob"


async def test_with_keep_others_are_let_in_however_long_it_lasts(
    authenticator: Authenticator, path: Path, monotonic: Clock
) -> None:
    await revoke(authenticator, path, ONE)
    spoil(path, None)
    monotonic.now += 10**6
    await authenticator.refresh()
    assert outcome(authenticator, jti="token-2") == "bob"
    assert outcome(authenticator) == "TOKEN_REVOKED"


class Down:
    """A source that never answers."""

    async def look(self, known: RevocationList) -> None:
        raise SourceError("down")


@pytest.mark.parametrize("on_outage", ["keep", "deny"])
async def test_before_any_list_was_read_nobody_is_let_in(tmp_path: Path, on_outage: Any) -> None:
    config = RevocationConfig(store=True, on_outage=on_outage)
    jwks = tmp_path / "jwks.json"
    tokens.publish_all(jwks)
    revoked = RevocationSource(Down(), config, Clock(0.0))
    authenticator = tokens.authenticator(jwks, Clock(), revocations=revoked)
    assert outcome(authenticator) == "REVOCATIONS_UNAVAILABLE"
    await authenticator.refresh()
    assert outcome(authenticator) == "REVOCATIONS_UNAVAILABLE"


async def test_an_entry_is_forgotten_only_when_no_leeway_can_need_it(path: Path) -> None:
    now, monotonic = Clock(NOW), Clock(0.0)
    write(path, {**ONE, "until": NOW}, BOB)
    os.utime(path, (NOW - 10, NOW - 10))
    config = RevocationConfig(file=path)
    revoked = revocations_of(config, None, clock=monotonic)
    revoked._now = now
    for seconds, left in ((0, 2), (299, 2), (300, 1), (10**8, 1)):
        now.now, monotonic.now = NOW + seconds, monotonic.now + 60
        await revoked.refresh()
        assert len(revoked.known) == left


def test_a_store_must_be_there() -> None:
    with pytest.raises(ConfigError, match="store"):
        revocations_of(RevocationConfig(store=True), None)


@pytest.mark.parametrize("fields", [{}, {"file": "x", "store": True}, {"file": "x", "on_outage": "open"}])
def test_a_list_is_in_one_place(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RevocationConfig.model_validate(fields)


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_ENTRIES", 2)
    known = RevocationList()
    known.replace([Revoked(issuer="i", jti="a"), Revoked(issuer="i", subject="b")])
    with pytest.raises(SourceError, match="more than 2"):
        known.replace([Revoked(issuer="i", jti=name) for name in "abc"])
    assert known.covers(Revocable("i", None, "b", None))


_ENTRIES = st.lists(
    st.builds(
        Revoked,
        issuer=st.sampled_from("ij"),
        subject=st.sampled_from("ab"),
        issued_before=st.none() | st.integers(0, 3),
        restored=st.booleans(),
    )
)


@given(_ENTRIES, st.integers(0, 3))
def test_of_several_entries_the_strictest_since_the_last_restored_holds(entries: list[Revoked], issued_at: int) -> None:
    """Against a model that keeps every entry. Applied again from the start, as after an outage, they say the same."""
    known = RevocationList()
    for _ in range(2):
        known.add(entries)
        for issuer in "ij":
            for subject in "ab":
                covered = known.covers(Revocable(issuer, None, subject, issued_at))
                assert covered is _model(entries, issuer, subject, issued_at)


@given(_ENTRIES, _ENTRIES, st.lists(st.booleans()))
def test_a_list_that_is_read_again_while_it_grows_never_says_anything_else(
    old: list[Revoked], new: list[Revoked], grows: list[bool]
) -> None:
    """Whatever the order in which it is read, told and added to."""
    known, rebuild, stream, read = RevocationList(), ListRebuild(), list(old), 0
    known.add(old)
    ended = told = False
    while new or not told:
        if new and (not grows or grows.pop()):
            stream.append(new.pop(0))
            known.add(stream[-1:])
            rebuild.feed(stream[-1:])
        elif not ended and read < len(stream):
            rebuild.feed([stream[read]])
            read += 1
        else:
            ended = True
            told = rebuild.finish(known, 1)
        assert _same(known, stream)


def test_what_another_list_said_goes_where_it_was_restored_and_stays_where_nothing_is_said() -> None:
    known, rebuild = RevocationList(), ListRebuild()
    known.add([Revoked(issuer="i", subject=name) for name in "abc"])
    said = [
        Revoked(issuer="i", subject="a", restored=True),
        Revoked(issuer="i", subject="a", issued_before=2),
        Revoked(issuer="i", subject="b", restored=True),
    ]
    rebuild.feed(said)
    assert rebuild.finish(known, 10)
    assert _same(known, [*said, Revoked(issuer="i", subject="c")])
    assert known.covers(Revocable("i", None, "c", 9))


def _same(known: RevocationList, entries: list[Revoked]) -> bool:
    names = [(issuer, subject, issued_at) for issuer in "ij" for subject in "ab" for issued_at in range(4)]
    return all(
        known.covers(Revocable(issuer, None, subject, issued_at)) is _model(entries, issuer, subject, issued_at)
        for issuer, subject, issued_at in names
    )


def _model(entries: list[Revoked], issuer: str, subject: str, issued_at: int) -> bool:
    holding: list[Revoked] = []
    for entry in entries:
        if (entry.issuer, entry.subject) == (issuer, subject):
            holding = [] if entry.restored else [*holding, entry]
    return any(entry.issued_before is None or issued_at < entry.issued_before for entry in holding)
