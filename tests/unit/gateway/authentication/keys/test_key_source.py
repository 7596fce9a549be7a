"""Keys at a URL: fetched ahead of need, for unknown kids within limits, and kept, for a time, when they can't be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.authentication import Authenticator, IssuerConfig
from gateway.authentication.keys import key_source as keysources
from gateway.authentication.keys.key_source import KeyUrl
from gateway.authentication.source import SourceError
from meshgate.errors import MeshError, Unauthenticated, Unavailable
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock

URL = "https://id.test/keys"


class Web:
    """What the URL answers: keys, or the reason why not."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = keys
        self.why = ""
        self.fetches = 0

    async def get(self, *_: Any, **__: Any) -> bytes:
        self.fetches += 1
        if self.why:
            raise SourceError(self.why)
        return tokens.key_set(self.keys)


EC = tokens.jwk(tokens.EC_KEY, kid="ec")
NEW = tokens.jwk(tokens.OTHER_EC_KEY, kid="new")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    made = Web(EC)
    monkeypatch.setattr("gateway.authentication.keys.https_get.get", made.get)
    return made


@pytest.fixture
def monotonic() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def authenticator(web: Web, monotonic: Clock) -> Authenticator:
    return tokens.authenticator(
        None, Clock(), monotonic=monotonic, jwks_url=URL, jwks_refresh_seconds=300, jwks_keep_seconds=3600
    )


def reason(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(MeshError) as caught:
        authenticator.authenticate(f"Bearer {token}")
    assert isinstance(caught.value, Unauthenticated | Unavailable)
    return caught.value.reason


def key_url(web: Web, clock: Clock, **config: Any) -> KeyUrl:
    return KeyUrl(web.get, IssuerConfig(issuer="i", audience="a", jwks_url=URL, **config), "i", clock)


async def test_keys_come_from_the_url(authenticator: Authenticator) -> None:
    await authenticator.refresh()
    assert authenticator.authenticate(f"Bearer {tokens.token()}").subject == "bob"


async def test_before_the_first_keys_nobody_is_believed_and_told_to_come_again(
    authenticator: Authenticator, web: Web
) -> None:
    web.why = "not reached"
    await authenticator.refresh()
    with pytest.raises(Unavailable) as caught:
        authenticator.authenticate(f"Bearer {tokens.token()}")
    assert (caught.value.reason, caught.value.retry_after) == ("KEYS_UNAVAILABLE", 1.0)


async def test_a_withdrawn_key_ends_its_tokens_cached_ones_too(authenticator: Authenticator, web: Web) -> None:
    await authenticator.refresh()
    authenticator.authenticate(f"Bearer {tokens.token()}")
    web.keys = (NEW,)
    await authenticator.refresh()
    assert reason(authenticator, tokens.token()) == "TOKEN_KEY_UNKNOWN"


async def test_keys_outlive_an_outage_for_so_long_and_no_longer(
    authenticator: Authenticator, web: Web, monotonic: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await authenticator.refresh()
    token = tokens.token()
    authenticator.authenticate(f"Bearer {token}")
    web.why = "timed out"
    with caplog.at_level(logging.ERROR):
        for monotonic.now in (1300.0, 2000.0, 4599.9):
            await authenticator.refresh()
            assert authenticator.authenticate(f"Bearer {token}").subject == "bob"
    assert [record.message for record in caplog.records] == ["source is out, what is known stays"]
    monotonic.now = 4600.0
    assert reason(authenticator, token) == "KEYS_UNAVAILABLE"
    assert reason(authenticator, tokens.token(sub="alice")) == "KEYS_UNAVAILABLE"
    web.why = ""
    await authenticator.refresh()
    assert authenticator.authenticate(f"Bearer {token}").subject == "bob"


async def test_metrics_can_tell_the_age_of_keys_and_failures(
    authenticator: Authenticator, web: Web, monotonic: Clock
) -> None:
    await authenticator.refresh()
    web.why = "timed out"
    monotonic.now += 60
    await authenticator.refresh()
    state = next(state for state in authenticator.sources() if state.name == f"keys {tokens.ISSUER} meshgate")
    assert (state.age_seconds, state.failures) == (60.0, 1)


async def test_they_are_fetched_before_they_are_old(web: Web, monotonic: Clock) -> None:
    keys = key_url(web, monotonic, jwks_refresh_seconds=300)
    for _ in range(20):
        await keys.refresh()
        assert 270 <= keys.next_at - monotonic.now <= 300


async def test_an_unknown_kid_has_them_fetched_soon_and_a_flood_not_oftener(web: Web, monotonic: Clock) -> None:
    keys = key_url(web, monotonic)
    await keys.refresh()
    monotonic.now += 60
    for number in range(1000):
        assert keys.find(f"bad-{number}") == ()
    assert keys.next_at <= monotonic.now
    await keys.refresh()
    for number in range(1000):
        keys.find(f"bad-{number}")
    assert keys.next_at == monotonic.now + 10
    assert web.fetches == 2


async def test_a_known_kid_brings_nothing_about(web: Web, monotonic: Clock) -> None:
    keys = key_url(web, monotonic)
    await keys.refresh()
    due = keys.next_at
    assert keys.find("ec")
    assert keys.next_at == due


async def test_an_outage_is_asked_about_ever_less_often_until_it_ends(web: Web, monotonic: Clock) -> None:
    keys = key_url(web, monotonic, jwks_refresh_seconds=60, jwks_keep_seconds=3600)
    web.why = "not reached"
    pauses = []
    for _ in range(8):
        await keys.refresh()
        pauses.append(keys.next_at - monotonic.now)
    for pause, longest in zip(pauses, (1, 2, 4, 8, 16, 32, 60, 60), strict=True):
        assert 0.9 * longest <= pause <= longest
    web.why = ""
    await keys.refresh()
    web.why = "not reached"
    await keys.refresh()
    assert keys.next_at - monotonic.now <= 1


async def test_issuers_with_the_same_url_share_one_fetch(web: Web) -> None:
    entries = [IssuerConfig(issuer=name, audience="meshgate", jwks_url=URL) for name in ("a", "b")]
    await Authenticator(entries).refresh()
    assert web.fetches == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://id.test/keys",
        "http://localhost/keys",
        "file:///etc/passwd",
        "id.test/keys",
        "https:///keys",
        "https://user:word@id.test/keys",
        "https://id.test/keys#x",
        "https://id.test:port/keys",
        "https://id.test/a b",
        "https://id.test/\r\nX: y",
        "https://id.test/é",
        "",
    ],
)
def test_only_an_https_url_can_be_configured(url: str) -> None:
    with pytest.raises(ValidationError, match="jwks_url"):
        IssuerConfig(issuer="i", audience="a", jwks_url=url)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"jwks": "keys.json", "jwks_url": URL},
        {"jwks": "keys.json", "jwks_ca": "ca.pem"},
        {"jwks_url": URL, "jwks_refresh_seconds": 600, "jwks_keep_seconds": 60},
    ],
)
def test_keys_are_in_one_place(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="jwks"):
        IssuerConfig.model_validate({"issuer": "i", "audience": "a", **fields})


def test_what_an_answer_may_weigh_is_bounded() -> None:
    assert keysources._MAX_BYTES <= 1024 * 1024


def test_a_ca_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(Exception, match="jwks_ca"):
            tokens.authenticator(None, Clock(), jwks_url=URL, jwks_ca=tmp_path / name)
