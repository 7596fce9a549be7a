"""How much may be in hand, and whose."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.errors import Unavailable
from services.batching.tenant_capacity import TenantCapacity


def fill(room: TenantCapacity, tenant: str) -> int:
    while room.fits(tenant, 1):
        room.take(tenant, 1)
    return room.of(tenant)


def test_one_tenant_alone_gets_three_quarters() -> None:
    room = TenantCapacity(100)
    assert fill(room, "flood") == 75


@given(st.integers(1, 4), st.integers(4**5, 4**7))
def test_whoever_floods_there_is_a_place_for_one_who_has_none(floods: int, capacity: int) -> None:
    room = TenantCapacity(capacity)
    for _ in range(3):
        for number in range(floods):
            fill(room, str(number))
    assert room.held <= capacity
    assert room.fits("newcomer", 1)


def test_as_work_is_done_those_that_flood_come_to_hold_the_same() -> None:
    room = TenantCapacity(700)
    fill(room, "first")
    fill(room, "second")
    for _ in range(1000):
        for tenant in ("first", "second"):
            room.give(tenant, 1)
            fill(room, tenant)
    assert room.of("first") == pytest.approx(300, abs=3)
    assert room.of("second") == pytest.approx(300, abs=3)


def test_an_empty_room_takes_what_is_too_large() -> None:
    room = TenantCapacity(10)
    assert room.fits("a", 100)
    room.take("a", 100)
    assert not room.fits("b", 1)


async def test_those_who_wait_are_let_in_in_order_and_by_tenant_who_holds_least() -> None:
    room = TenantCapacity(4)
    room.take("flood", 3)
    order: list[str] = []

    async def enter(tenant: str, name: str) -> None:
        await room.wait(tenant, 2)
        order.append(name)

    waiting = [
        asyncio.create_task(enter(*each)) for each in (("flood", "f1"), ("flood", "f2"), ("quiet", "q1"), ("new", "n1"))
    ]
    await asyncio.sleep(0)
    room.give("flood", 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["q1"]
    room.give("quiet", 2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["q1", "n1"]
    room.give("new", 2)
    room.give("flood", 2)
    for _ in range(4):
        await asyncio.sleep(0)
    assert order == ["q1", "n1", "f1"]
    room.give("flood", 2)
    await asyncio.gather(*waiting)
    assert order == ["q1", "n1", "f1", "f2"]
    assert room.held == 2


async def test_who_leaves_while_waiting_takes_nothing_and_holds_nobody_up() -> None:
    room = TenantCapacity(4)
    room.take("a", 3)
    large, small = (asyncio.create_task(room.wait("b", weight)) for weight in (4, 1))
    await asyncio.sleep(0)
    assert not small.done()
    large.cancel()
    await asyncio.wait([large, small])
    assert large.cancelled()
    assert room.held == 4


async def test_who_is_let_in_and_leaves_at_once_gives_it_back() -> None:
    room = TenantCapacity(4)
    room.take("a", 4)
    waiting = asyncio.create_task(room.wait("b", 2))
    await asyncio.sleep(0)
    room.give("a", 4)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (room.held, room.tenants) == (0, 0)


async def test_a_closed_room_tells_each_who_waits() -> None:
    room = TenantCapacity(1)
    room.take("a", 1)
    waiting = [asyncio.create_task(room.wait("b", 1)) for _ in range(2)]
    await asyncio.sleep(0)
    room.close(lambda: Unavailable("closed", reason="DRAINING"))
    for task in waiting:
        with pytest.raises(Unavailable):
            await task
    assert room.held == 1
