"""Envelopes remembered in a real Valkey: by all gateways together, for long enough, and only so many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.redis_client import Client
from gateway.sealing.replay_cache import RedisReplayCache
from meshgate import errors
from tests.support.network.valkey import Valkey

WINDOW_MS = 120_000
NOW = 1_700_000_000_000


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    made = Valkey(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[Client]:
    async with valkey.client() as made:
        yield made


def gateway(client: Client, capacity: int = 100) -> RedisReplayCache:
    """One process of those that share the store."""
    return RedisReplayCache(client, "mesh", WINDOW_MS, capacity, timeout=2)


def used(number: int) -> bytes:
    return number.to_bytes(32)


async def refusal(replays: RedisReplayCache, number: int, now: int = NOW) -> str:
    """Why the envelope is not let in; empty where it is."""
    try:
        await replays.admit(used(number), now)
    except (errors.InvalidArgument, errors.Unavailable) as error:
        return error.reason
    return ""


async def test_an_envelope_is_let_in_once_by_all_together(client: Client) -> None:
    one, other = gateway(client), gateway(client)
    assert [await refusal(each, 1) for each in (one, other, one)] == ["", "SEAL_REPLAYED", "SEAL_REPLAYED"]
    assert await refusal(other, 2) == ""


async def test_gateways_whose_clocks_differ_by_a_minute_agree(client: Client) -> None:
    """One lets in at the very beginning of an envelope's time; the other, a minute slow, could until this is over."""
    await gateway(client).admit(used(1), NOW)
    (key,) = await client.keys("mesh:replays:*")
    assert await client.pttl(key) > 2 * WINDOW_MS + 50_000


async def test_a_process_lets_in_no_more_than_it_may_and_the_store_gets_no_more(client: Client) -> None:
    one = gateway(client, capacity=2)
    assert [await refusal(one, number) for number in range(4)] == ["", "", "OVERLOADED", "OVERLOADED"]
    assert len(await client.keys("mesh:replays:*")) == 2
    assert await refusal(one, 4, NOW + 2 * WINDOW_MS + 1) == ""


async def test_a_full_store_refuses_rather_than_forgets(client: Client) -> None:
    await gateway(client).admit(used(1), NOW)
    await configure(client, **{"maxmemory-policy": "noeviction", "maxmemory": "1"})
    assert await refusal(gateway(client), 2) == "REPLAYS_UNAVAILABLE"
    assert await refusal(gateway(client), 1) in {"REPLAYS_UNAVAILABLE", "SEAL_REPLAYED"}
    await configure(client, maxmemory="0")
    assert await refusal(gateway(client), 1) == "SEAL_REPLAYED"
    assert await refusal(gateway(client), 2) == ""


async def configure(client: Client, **settings: Any) -> None:
    for name, value in settings.items():
        await client.config_set(name, value)
