"""The principal that a verified token proves, and for how long it does."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.authentication import Authenticator, IssuerConfig
from gateway.authentication.keys import key_source
from gateway.principal import Principal
from meshgate.errors import Unauthenticated
from meshgate.runtime.config import ConfigError
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import NOW, Clock


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(jwks: Path, clock: Clock) -> Authenticator:
    return tokens.authenticator(jwks, clock)


def bearer(token: str) -> str:
    return f"Bearer {token}"


def refusal(authenticator: Authenticator, authorization: str | None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        authenticator.authenticate(authorization)
    return caught.value.reason


def spoil(path: Path, content: bytes | None) -> None:
    """Writes what is no key set, or takes the file away."""
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_a_good_token_names_its_principal(authenticator: Authenticator) -> None:
    assert authenticator.authenticate(bearer(tokens.token())) == Principal(
        tenant="acme",
        subject="bob",
        scopes=frozenset({"generate", "embed"}),
        token_id_hash=hashlib.sha256(b"token-1").hexdigest()[:16],
        expires_at=NOW + 60,
        issuer=tokens.ISSUER,
        confirmation=None,
    )


@pytest.mark.parametrize(("kid", "algorithm"), [("ec", "ES256"), ("ed", "EdDSA"), ("rsa", "RS256"), ("rsa", "PS256")])
def test_each_allowed_algorithm_is_verified(authenticator: Authenticator, kid: str, algorithm: str) -> None:
    token = tokens.token(tokens.KEYS[kid], algorithm, {"kid": kid})
    assert authenticator.authenticate(bearer(token)).subject == "bob"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER "])
def test_the_scheme_is_case_insensitive(authenticator: Authenticator, scheme: str) -> None:
    assert authenticator.authenticate(scheme + tokens.token()).tenant == "acme"


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic Ym9iOnB3", "Token abc", "Bearer\tabc"])
def test_without_a_bearer_token_it_is_missing(authenticator: Authenticator, authorization: str | None) -> None:
    assert refusal(authenticator, authorization) == "TOKEN_MISSING"


def test_a_token_without_jti_is_known_by_its_hash(authenticator: Authenticator) -> None:
    token = tokens.token(jti=None)
    expected = hashlib.sha256(token.encode()).hexdigest()[:16]
    assert authenticator.authenticate(bearer(token)).token_id_hash == expected


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({"scope": None}, set()),
        ({"scope": ""}, set()),
        ({"scope": None, "scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": None, "scp": "a b"}, {"a", "b"}),
        ({"scope": "a", "scp": ["b"]}, {"a"}),
    ],
)
def test_scopes(authenticator: Authenticator, changes: dict[str, Any], scopes: set[str]) -> None:
    assert authenticator.authenticate(bearer(tokens.token(**changes))).scopes == scopes


def test_one_audience_of_several_is_enough(authenticator: Authenticator) -> None:
    assert authenticator.authenticate(bearer(tokens.token(aud=["other", tokens.AUDIENCE]))).tenant == "acme"


def test_the_tenant_claim_can_have_another_name(jwks: Path, clock: Clock) -> None:
    authenticator = tokens.authenticator(jwks, clock, tenant_claim="org")
    assert authenticator.authenticate(bearer(tokens.token(org="globex"))).tenant == "globex"
    assert refusal(authenticator, bearer(tokens.token())) == "TOKEN_CLAIM"


def test_a_token_ends_at_exp_plus_leeway_cached_or_not(jwks: Path, clock: Clock) -> None:
    cached = tokens.authenticator(jwks, clock)
    token = bearer(tokens.token())
    cached.authenticate(token)
    clock.now = NOW + 89.999
    cached.authenticate(token)
    tokens.authenticator(jwks, clock).authenticate(token)
    clock.now = NOW + 90
    assert refusal(cached, token) == "TOKEN_EXPIRED"
    assert refusal(tokens.authenticator(jwks, clock), token) == "TOKEN_EXPIRED"


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_begins_at_nbf_and_iat_less_leeway(authenticator: Authenticator, claim: str) -> None:
    good: dict[str, Any] = {claim: NOW + 30}
    early: dict[str, Any] = {claim: NOW + 31}
    authenticator.authenticate(bearer(tokens.token(**good)))
    assert refusal(authenticator, bearer(tokens.token(**early))) == "TOKEN_NOT_YET_VALID"


def test_a_signature_is_checked_once(authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    token = bearer(tokens.token())
    first = authenticator.authenticate(token)
    monkeypatch.setattr("gateway.authentication.verification.check_signature", None)
    assert authenticator.authenticate(token) is first


def test_the_cache_is_bounded_and_forgets_the_longest_unused(
    jwks: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = tokens.authenticator(jwks, clock, cached_tokens=2)
    one, two, three = (bearer(tokens.token(sub=name)) for name in ("one", "two", "three"))
    for token in (one, two, one, three):
        authenticator.authenticate(token)
    checked: list[str] = []
    monkeypatch.setattr("gateway.authentication.verification.check_signature", lambda token, *_: checked.append(token))
    for token in (one, three, two):
        authenticator.authenticate(token)
    assert checked == [two.removeprefix("Bearer ")]


async def test_a_withdrawn_key_ends_its_tokens_cached_ones_too(authenticator: Authenticator, jwks: Path) -> None:
    token = bearer(tokens.token())
    authenticator.authenticate(token)
    tokens.publish(jwks, [tokens.jwk(tokens.ED_KEY, kid="ed")])
    await authenticator.refresh()
    assert refusal(authenticator, token) == "TOKEN_KEY_UNKNOWN"


async def test_an_empty_key_set_withdraws_all(authenticator: Authenticator, jwks: Path) -> None:
    tokens.publish(jwks, [])
    await authenticator.refresh()
    assert refusal(authenticator, bearer(tokens.token())) == "TOKEN_KEY_UNKNOWN"


async def test_a_new_key_is_found_and_no_call_reads_the_file(
    authenticator: Authenticator, jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = bearer(tokens.token(tokens.OTHER_EC_KEY, header={"kid": "new"}))
    tokens.publish(jwks, [tokens.jwk(tokens.OTHER_EC_KEY, kid="new")])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", None)
        patched.setattr(Path, "open", None)
        for number in range(100):
            refusal(authenticator, bearer(tokens.token(header={"kid": f"bad-{number}"})))
        assert refusal(authenticator, new) == "TOKEN_KEY_UNKNOWN"
    await authenticator.refresh()
    assert authenticator.authenticate(new).subject == "bob"


async def test_a_file_that_did_not_change_is_not_read(
    authenticator: Authenticator, jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(jwks, (NOW - 10, NOW - 10))
    await authenticator.refresh()
    monkeypatch.setattr(Path, "open", None)
    await authenticator.refresh()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": [{"kty": "oct"}]}', b"\xff" * 9]
)
async def test_a_bad_reload_keeps_the_old_keys_and_says_so_once(
    authenticator: Authenticator, jwks: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(jwks, content)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await authenticator.refresh()
        assert authenticator.authenticate(bearer(tokens.token())).subject == "bob"
        assert [
            state.failures for state in authenticator.sources() if state.name == f"keys {tokens.ISSUER} meshgate"
        ] == [3]
        tokens.publish_all(jwks)
        await authenticator.refresh()
    told = [record.message for record in caplog.records]
    assert told == ["source is out, what is known stays", "source is back"]
    assert str(jwks) not in caplog.text


async def test_a_deleted_key_file_keeps_the_old_keys(authenticator: Authenticator, jwks: Path) -> None:
    spoil(jwks, None)
    await authenticator.refresh()
    assert authenticator.authenticate(bearer(tokens.token())).subject == "bob"


def test_without_keys_there_is_no_start(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ConfigError):
        tokens.authenticator(tmp_path / "missing.json", clock)


def test_kid_may_be_left_out_where_there_is_one_key(jwks: Path, clock: Clock) -> None:
    token = bearer(tokens.token(header={"kid": None}))
    assert refusal(tokens.authenticator(jwks, clock), token) == "TOKEN_KEY_UNKNOWN"
    tokens.publish(jwks, [tokens.jwk(tokens.EC_KEY, kid="ec")])
    assert tokens.authenticator(jwks, clock).authenticate(token).subject == "bob"


def test_two_issuers_do_not_vouch_for_each_other(jwks: Path, tmp_path: Path, clock: Clock) -> None:
    other = tmp_path / "other.json"
    tokens.publish(other, [tokens.jwk(tokens.OTHER_EC_KEY, kid="ec")])
    entries = [
        IssuerConfig(issuer=tokens.ISSUER, audience=tokens.AUDIENCE, jwks=jwks),
        IssuerConfig(issuer="https://other.test", audience=tokens.AUDIENCE, jwks=other),
    ]
    authenticator = Authenticator(entries, clock, monotonic=Clock(0.0))
    assert authenticator.authenticate(bearer(tokens.token())).issuer == tokens.ISSUER
    theirs = tokens.token(tokens.OTHER_EC_KEY, iss="https://other.test")
    assert authenticator.authenticate(bearer(theirs)).issuer == "https://other.test"
    assert refusal(authenticator, bearer(tokens.token(iss="https://other.test"))) == "TOKEN_SIGNATURE"


def test_a_bound_token_is_good_with_its_certificate_alone(authenticator: Authenticator) -> None:
    token = bearer(tokens.token(cnf={"x5t#S256": "thumbprint"}))
    assert authenticator.authenticate(token, "thumbprint").confirmation == "thumbprint"
    assert refusal(authenticator, token) == "TOKEN_BINDING"
    with pytest.raises(Unauthenticated):
        authenticator.authenticate(token, "another")


async def test_a_fault_in_the_background_is_told_and_does_not_end_it(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = 0
    again = asyncio.Event()

    async def faulty(_: Any) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise RuntimeError("s3cret")
        if runs == 3:
            again.set()

    monkeypatch.setattr(key_source, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(authenticator._kept[0].refresher, "_refresh", partial(faulty, None))
    monkeypatch.setattr(key_source.KeyFile, "refresh", faulty)
    before = asyncio.all_tasks()
    await authenticator.start()
    async with asyncio.timeout(10):
        await again.wait()
    await authenticator.stop()
    await authenticator.stop()
    assert asyncio.all_tasks() == before
    assert [record.__dict__["why"] for record in caplog.records if record.levelname == "ERROR"] == ["RuntimeError"]
    assert "s3cret" not in caplog.text


@given(st.text() | st.text().map(bearer) | st.binary().map(lambda raw: bearer(tokens.encode(raw))))
def test_any_string_is_refused_or_proves_a_principal(authorization: str) -> None:
    with pytest.raises(Unauthenticated):
        _SHARED.authenticate(authorization)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    claim=st.sampled_from(["iss", "aud", "sub", "tenant", "scope", "scp", "iat", "nbf", "exp", "jti", "cnf"]),
    value=_JSON,
)
def test_any_claim_of_a_signed_token_is_refused_or_proves_a_principal(claim: str, value: Any) -> None:
    token = tokens.token(**{claim: value})
    try:
        principal = _SHARED.authenticate(bearer(token))
    except Unauthenticated:
        return
    assert principal.tenant.isascii() and principal.tenant.isprintable()
    assert principal.subject.isprintable()


@given(name=st.sampled_from(["alg", "typ", "kid", "crit", "x"]), value=_JSON)
def test_any_header_is_refused_or_proves_a_principal(name: str, value: Any) -> None:
    header = {"alg": "ES256", "typ": "JWT", "kid": "ec", name: value}
    try:
        _SHARED.authenticate(bearer(tokens.assemble(header, tokens.claims(), b"x" * 64)))
    except Unauthenticated:
        return
    pytest.fail("nobody signed this")


def _shared() -> Authenticator:
    """One for the properties, which can't have fixtures."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "jwks.json"
        tokens.publish_all(path)
        return tokens.authenticator(path, Clock())


_SHARED = _shared()
