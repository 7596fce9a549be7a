"""Keys over real TLS, in the background: fetched, fetched again, kept, and no task left at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.authentication import Authenticator, IssuerConfig
from gateway.authentication.keys import key_source
from meshgate.errors import MeshError
from tests.support.fixtures import tokens
from tests.support.network import jwks_server
from tests.support.network.jwks_server import JwksServer, ok

EC = tokens.jwk(tokens.EC_KEY, kid="ec")
NEW = tokens.jwk(tokens.OTHER_EC_KEY, kid="new")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[JwksServer]:
    async with jwks_server.jwks_server(tmp_path) as made:
        made.answer = ok([EC])
        yield made


def authenticator(server: JwksServer, **config: Any) -> Authenticator:
    fields = {"jwks_url": server.url, "jwks_ca": server.ca, **config}
    return Authenticator([IssuerConfig(issuer=tokens.ISSUER, audience=tokens.AUDIENCE, **fields)], tokens.Clock())


def outcome(authenticator: Authenticator, key: Any = tokens.EC_KEY, kid: str = "ec", **claims: Any) -> str:
    try:
        return authenticator.authenticate(f"Bearer {tokens.token(key, header={'kid': kid}, **claims)}").subject
    except MeshError as error:
        return error.reason


async def until(authenticator: Authenticator, wanted: str, **token: Any) -> None:
    """Waits until the token has that outcome."""
    async with asyncio.timeout(20):
        while outcome(authenticator, **token) != wanted:  # noqa: ASYNC110 - a call is refused at once, never told later
            await asyncio.sleep(0.01)


async def test_keys_are_there_when_it_has_started(server: JwksServer) -> None:
    made = authenticator(server)
    assert outcome(made) == "KEYS_UNAVAILABLE"
    await made.start()
    assert outcome(made) == "bob"
    await made.stop()
    request = server.requests[0].decode()
    assert request.startswith("GET /keys?tenant=all HTTP/1.1\r\n")
    assert f"Host: localhost:{server.port}\r\n" in request


async def test_they_are_fetched_again_ahead_of_need(server: JwksServer) -> None:
    made = authenticator(server, jwks_refresh_seconds=1)
    await made.start()
    server.answer = ok([NEW])
    await until(made, "TOKEN_KEY_UNKNOWN")
    assert outcome(made, tokens.OTHER_EC_KEY, "new") == "bob"
    await made.stop()


async def test_an_unknown_kid_has_them_fetched_once(server: JwksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_source, "_UNKNOWN_SECONDS", 0.2)
    made = authenticator(server, jwks_refresh_seconds=3600)
    await made.start()
    server.answer = ok([EC, NEW])
    await until(made, "bob", key=tokens.OTHER_EC_KEY, kid="new")
    assert len(server.requests) == 2
    await made.stop()


async def test_a_source_that_is_down_leaves_the_keys_and_is_found_again(server: JwksServer) -> None:
    made = authenticator(server, jwks_refresh_seconds=1)
    await made.start()
    await server.stop()
    state = made.sources()[0]
    async with asyncio.timeout(20):
        while made.sources()[0].failures == 0:  # noqa: ASYNC110 - it happens in the background and tells nobody
            await asyncio.sleep(0.02)
    assert state.failures == 0
    assert outcome(made) == "bob"
    server.answer = ok([NEW])
    await server.start()
    await until(made, "TOKEN_KEY_UNKNOWN")
    await made.stop()


async def test_a_start_with_the_source_down_is_bounded_and_catches_up(server: JwksServer) -> None:
    good, server.answer = server.answer, None
    made = authenticator(server, jwks_timeout_seconds=0.5)
    async with asyncio.timeout(5):  # less than where none is said
        await made.start()
    assert outcome(made) == "KEYS_UNAVAILABLE"
    server.answer = good
    await until(made, "bob")
    await made.stop()


async def test_stopping_during_a_fetch_is_prompt_and_leaves_nothing(server: JwksServer) -> None:
    made = authenticator(server, jwks_refresh_seconds=1, jwks_timeout_seconds=60)
    await made.start()
    server.answer = None
    await server.served(2)
    async with asyncio.timeout(20):  # and not a minute
        await made.stop()
    assert not [task for task in asyncio.all_tasks() if "_tend" in repr(task)]
