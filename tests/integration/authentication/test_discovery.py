"""Discovery over real TLS: the issuer names the URL of its keys, and the answer is checked and bounded."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.authentication import Authenticator, IssuerConfig
from tests.integration.authentication.test_key_source import outcome
from tests.support.fixtures import tokens
from tests.support.network import jwks_server
from tests.support.network.jwks_server import JwksServer, ok

EC = tokens.jwk(tokens.EC_KEY, kid="ec")
NEW = tokens.jwk(tokens.OTHER_EC_KEY, kid="new")
WELL_KNOWN = "/.well-known/openid-configuration"


class Issuer:
    """An issuer at a server, its document and its keys."""

    def __init__(self, server: JwksServer, path: str = "") -> None:
        self.server = server
        self.name = f"https://localhost:{server.port}{path}"
        self.place = path.rstrip("/") + WELL_KNOWN
        self.says({"issuer": self.name, "jwks_uri": f"https://localhost:{server.port}/keys"})
        server.answers["/keys"] = ok([EC])

    def says(self, document: Any) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def answers(self, answer: bytes | None) -> None:
        self.server.answers[self.place] = answer

    def authenticator(self, **config: Any) -> Authenticator:
        fields = {"issuer": self.name, "audience": tokens.AUDIENCE, "discovery": True, "jwks_ca": self.server.ca}
        return Authenticator([IssuerConfig.model_validate({**fields, **config})], tokens.Clock())

    async def outcome(self, **config: Any) -> str:
        made = self.authenticator(**config)
        await made.refresh()
        return self.of(made)

    def of(self, made: Authenticator, key: Any = tokens.EC_KEY, kid: str = "ec") -> str:
        return outcome(made, key, kid, iss=self.name)


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with jwks_server.jwks_server(tmp_path) as server:
        server.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        yield Issuer(server)


@pytest.mark.parametrize("path", ["", "/", "/realms/mesh", "/realms/mesh/"])
async def test_its_keys_are_found(issuer: Issuer, path: str) -> None:
    assert await Issuer(issuer.server, path).outcome() == "bob"
    asked = [request.split(b" ")[1] for request in issuer.server.requests]
    assert asked == [(path.rstrip("/") + WELL_KNOWN).encode(), b"/keys"]


WRONG = [
    "another issuer",
    "a slash more",
    "other letters",
    "no issuer",
    "a list of issuers",
    "two issuers",
    "no keys",
    "keys in the clear",
    "keys in a file",
    "keys with a password",
    "keys with a fragment",
    "keys elsewhere in the header",
    "keys that are no text",
    "many keys",
    "no port",
    "a long address",
    "a list",
    "nothing",
    "no JSON",
    "deep",
    "long",
]


def wrong(issuer: Issuer) -> dict[str, Any]:
    keys = f"https://localhost:{issuer.server.port}/keys"
    named = {"issuer": issuer.name}
    return {
        "another issuer": {"issuer": "https://else.test", "jwks_uri": keys},
        "a slash more": {"issuer": issuer.name + "/", "jwks_uri": keys},
        "other letters": {"issuer": issuer.name.upper(), "jwks_uri": keys},
        "no issuer": {"jwks_uri": keys},
        "a list of issuers": {"issuer": [issuer.name], "jwks_uri": keys},
        "two issuers": b'{"issuer": "x", "issuer": "%s", "jwks_uri": "%s"}' % (issuer.name.encode(), keys.encode()),
        "no keys": named,
        "keys in the clear": {**named, "jwks_uri": keys.replace("https", "http")},
        "keys in a file": {**named, "jwks_uri": "file:///etc/passwd"},
        "keys with a password": {**named, "jwks_uri": keys.replace("//", "//a:b@")},
        "keys with a fragment": {**named, "jwks_uri": keys + "#x"},
        "keys elsewhere in the header": {**named, "jwks_uri": keys + "\r\nX: y"},
        "keys that are no text": {**named, "jwks_uri": 7},
        "many keys": {**named, "jwks_uri": [keys]},
        "no port": {**named, "jwks_uri": "https://localhost:port/keys"},
        "a long address": {**named, "jwks_uri": keys + "?" + "x" * 3000},
        "a list": [],
        "nothing": b"",
        "no JSON": b"<html>",
        "deep": b"[" * 50_000,
        "long": b'{"x": "' + b"x" * 70_000 + b'"}',
    }


@pytest.mark.parametrize("name", WRONG)
async def test_a_document_that_is_not_its_own_or_none_gives_no_keys(
    issuer: Issuer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(wrong(issuer)) == WRONG
    issuer.says(wrong(issuer)[name])
    assert await issuer.outcome() == "KEYS_UNAVAILABLE"
    assert len(issuer.server.requests) == 1  # and nobody was asked for keys
    (told,) = [record.__dict__["why"] for record in caplog.records if record.levelname == "ERROR"]
    assert "localhost" not in told and "\n" not in told


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 500])
async def test_no_redirect_is_followed(issuer: Issuer, status: int) -> None:
    issuer.answers(b"HTTP/1.1 %d X\r\nLocation: https://localhost/x\r\nContent-Length: 0\r\n\r\n" % status)
    assert await issuer.outcome() == "KEYS_UNAVAILABLE"
    assert len(issuer.server.requests) == 1


@pytest.mark.parametrize("silent", [WELL_KNOWN, "/keys"])
async def test_both_together_take_no_longer_than_one_fetch(issuer: Issuer, silent: str) -> None:
    issuer.server.answers[silent] = None
    before = time.monotonic()
    assert await issuer.outcome(jwks_timeout_seconds=0.4) == "KEYS_UNAVAILABLE"
    assert 0.3 < time.monotonic() - before < 5


async def test_keys_move_and_are_kept_while_the_issuer_is_another(issuer: Issuer) -> None:
    made = issuer.authenticator()
    await made.refresh()
    assert issuer.of(made) == "bob"
    issuer.server.answers["/new"] = ok([NEW])
    issuer.says({"issuer": issuer.name, "jwks_uri": f"https://localhost:{issuer.server.port}/new"})
    await made.refresh()
    assert issuer.of(made) == "TOKEN_KEY_UNKNOWN"
    assert issuer.of(made, tokens.OTHER_EC_KEY, "new") == "bob"
    issuer.says({"issuer": "https://else.test", "jwks_uri": f"https://localhost:{issuer.server.port}/keys"})
    await made.refresh()
    assert issuer.of(made, tokens.OTHER_EC_KEY, "new") == "bob"


async def test_two_issuers_of_one_server_do_not_share_keys(issuer: Issuer) -> None:
    other = Issuer(issuer.server, "/other")
    issuer.server.answers["/theirs"] = ok([NEW])
    other.says({"issuer": other.name, "jwks_uri": f"https://localhost:{issuer.server.port}/theirs"})
    fields = {"audience": tokens.AUDIENCE, "discovery": True, "jwks_ca": issuer.server.ca}
    entries = [IssuerConfig.model_validate({"issuer": each.name, **fields}) for each in (issuer, other)]
    made = Authenticator(entries, tokens.Clock())
    await made.refresh()
    assert (issuer.of(made), other.of(made)) == ("bob", "TOKEN_KEY_UNKNOWN")
    assert other.of(made, tokens.OTHER_EC_KEY, "new") == "bob"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"issuer": "http://id.test"}, "issuer"),
        ({"issuer": "id.test"}, "issuer"),
        ({"issuer": "https://id.test?x=1"}, "issuer"),
        ({"issuer": "https://id.test/#x"}, "issuer"),
        ({"issuer": "https://a:b@id.test"}, "issuer"),
        ({"jwks": "keys.json"}, "discovery"),
        ({"jwks_url": "https://id.test/keys"}, "discovery"),
        ({"jwks": "keys.json", "discovery": False, "jwks_ca": "x"}, "jwks_ca"),
    ],
)
def test_what_makes_no_sense_stops_the_start(fields: dict[str, Any], told: str) -> None:
    good = {"issuer": "https://id.test", "audience": "a", "discovery": True}
    IssuerConfig.model_validate(good)
    with pytest.raises(ValidationError, match=told):
        IssuerConfig.model_validate({**good, **fields})
