"""Where the SDK's token comes from: renewed before it ends, kept while it lasts, never shown."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate import errors
from meshgate.client.token import AsyncTokenSource, TokenSource, parse

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


class Issuer:
    """Makes tokens of a hundred seconds' life, and counts them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.made = 0
        self.broken = False

    def __call__(self) -> str:
        if self.broken:
            raise RuntimeError("s3cret")
        self.made += 1
        return jwt(sub=f"number {self.made}", tenant="acme", exp=self.clock.now + 100)

    async def later(self) -> str:
        return self()


def replace(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_claims_are_read() -> None:
    token = parse(jwt(sub="alice", tenant="acme", exp=NOW + 1000) + "\n", NOW)
    assert (token.subject, token.tenant, token.expires_at) == ("alice", "acme", NOW + 1000)
    assert token.renew_at == NOW + 940
    assert token.value not in repr(token)


def test_a_short_token_is_renewed_after_nine_tenths_of_its_life() -> None:
    assert parse(jwt(exp=NOW + 100), NOW).renew_at == NOW + 90


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300))
def test_what_is_no_jwt_has_no_claims(text: str) -> None:
    token = parse(text, NOW)
    assert token.value == text.strip()


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.just({})))
def test_claims_of_any_type_do_no_harm(value: Any) -> None:
    token = parse(jwt(sub=value, tenant=value, exp=value), NOW)
    assert token.subject is None or token.subject == value


@pytest.mark.parametrize("text", ["", " ", "two words", "new\nline", "ü", "x" * 8193, "nul\0"])
def test_what_cannot_be_a_token_is_refused_unseen(text: str) -> None:
    with pytest.raises(errors.Unauthenticated) as caught:
        parse(text, NOW)
    assert caught.value.reason == "TOKEN_UNREADABLE"
    assert not text.strip() or text not in str(caught.value)


def test_a_value_stays_what_it_is() -> None:
    clock = Clock()
    source = TokenSource(jwt(exp=NOW + 1), clock)
    clock.now += 1000
    assert source.get().expires_at == NOW + 1  # the gateway says that it expired


def test_a_function_is_called_again_before_the_end() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    source = TokenSource(issuer, clock)
    assert source.get() is source.get()
    clock.now += 89
    assert source.get().subject == "number 1"
    clock.now += 1
    assert source.get().subject == "number 2"


def test_a_token_without_an_end_is_made_for_every_call() -> None:
    made = iter(["one", "two"])
    source = TokenSource(lambda: next(made), Clock())
    assert [source.get().value, source.get().value] == ["one", "two"]


def test_while_it_lasts_the_old_token_covers_for_a_broken_issuer() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    source = TokenSource(issuer, clock)
    source.get()
    issuer.broken = True
    clock.now += 95
    assert source.get().subject == "number 1"
    clock.now += 5
    with pytest.raises(errors.Unauthenticated) as caught:
        source.get()
    assert caught.value.reason == "TOKEN_UNAVAILABLE"
    assert "s3cret" not in str(caught.value)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    source = TokenSource(path)
    assert source.get().value == "first"
    replace(path, "other")
    assert source.get().value == "other"


def test_a_file_in_the_midst_of_replacement_keeps_the_token(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "token"
    path.write_text(jwt(exp=NOW + 100))
    source = TokenSource(path, clock)
    source.get()
    path.write_text("")
    assert source.get().expires_at == NOW + 100
    path.unlink()
    assert source.get().expires_at == NOW + 100
    clock.now += 100
    with pytest.raises(errors.Unauthenticated) as caught:
        source.get()
    assert os.fspath(path) not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"two words", None])
def test_a_file_without_a_token_is_an_error_of_authentication(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.Unauthenticated):
        TokenSource(path).get()


def test_an_asynchronous_function_needs_an_asynchronous_channel() -> None:
    issuer = Issuer(Clock())
    source: Any = TokenSource
    made = issuer.later()
    with pytest.raises(errors.Unauthenticated):
        source(lambda: made).get()
    made.close()


@pytest.mark.parametrize("way", ["function", "coroutine function", "function that returns a coroutine"])
async def test_asyncio_takes_every_kind_of_function(way: str) -> None:
    clock = Clock()
    issuer = Issuer(clock)
    origins: dict[str, Callable[[], Any]] = {
        "function": issuer,
        "coroutine function": issuer.later,
        "function that returns a coroutine": lambda: issuer.later(),
    }
    source = AsyncTokenSource(origins[way], clock)
    assert (await source.get()).subject == "number 1"
    assert (await source.get(5)).subject == "number 1"
    clock.now += 90
    assert (await source.get()).subject == "number 2"


async def test_a_function_that_hangs_is_not_waited_for_past_the_deadline() -> None:
    source = AsyncTokenSource(asyncio.Event().wait, Clock())  # type: ignore[arg-type]  # it never returns at all
    with pytest.raises(errors.Unauthenticated):
        await source.get(0)
