"""What comes before an engine is done in turn: by tenant, by subject, in steps, with bytes bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from meshgate.errors import Unavailable
from services.common.caller import CallerIdentity
from services.text.pieces import PIECE
from services.text.preparing import PreparationQueue, Steps, at_once

_SECONDS = 30.0


class Gate:
    """Steps that say when they began and end when they are let."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.running = 0
        self.most = 0
        self.closed: list[str] = []
        self._changed = threading.Condition()
        self._let = 0

    def steps(self, name: str, count: int = 1, size: int = 100) -> Steps[str]:
        try:
            for number in range(count):
                if number:
                    yield size
                self._step(name)
            return name
        finally:
            self.closed.append(name)

    def _step(self, name: str) -> None:
        with self._changed:
            self.order.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._let > 0, _SECONDS)
            self._let -= 1
            self.running -= 1

    def let(self, count: int = 1) -> None:
        with self._changed:
            self._let += count
            self._changed.notify_all()

    async def until(self, begun: int) -> None:
        """So many steps have begun."""

        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(lambda: len(self.order) >= begun, _SECONDS)

        await asyncio.to_thread(wait)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest_asyncio.fixture
async def made() -> AsyncIterator[Callable[..., PreparationQueue]]:
    all_made: list[PreparationQueue] = []

    def make(capacity: int = 100_000, threads: int = 1) -> PreparationQueue:
        all_made.append(PreparationQueue(capacity, threads=threads))
        return all_made[-1]

    yield make
    for each in all_made:
        each.close()


def run(
    preparing: PreparationQueue, who: CallerIdentity, steps: Steps[Any], size: int = 1000, **rest: Any
) -> asyncio.Task[Any]:
    return asyncio.create_task(preparing.run(who, steps, size, rest.pop("first", 100), **rest))


async def test_another_tenant_waits_for_a_step_and_not_for_a_text(made: Any, gate: Gate) -> None:
    preparing = made()
    tasks = [run(preparing, CallerIdentity("a"), gate.steps(f"a{number}", count=5)) for number in range(4)]
    await gate.until(1)
    tasks.append(run(preparing, CallerIdentity("b"), gate.steps("b")))
    await asyncio.sleep(0)
    gate.let(21)
    await asyncio.gather(*tasks)
    assert gate.order.index("b") <= 2
    assert len(gate.order) == 21


async def test_subjects_of_a_tenant_take_turns_and_have_no_more_than_one_that_is_alone(made: Any, gate: Gate) -> None:
    preparing = made()
    tasks = [run(preparing, CallerIdentity("a", "x"), gate.steps("ax", count=6))]
    await gate.until(1)
    tasks += [run(preparing, CallerIdentity("a", subject), gate.steps(f"a{subject}", count=6)) for subject in "yz"]
    tasks += [run(preparing, CallerIdentity("b", "x"), gate.steps("bx", count=6))]
    await asyncio.sleep(0)
    gate.let(24)
    await asyncio.gather(*tasks)
    first = gate.order[:12]
    assert 5 <= first.count("bx") <= 6
    assert all(first.count(name) >= 2 for name in ("ay", "az"))


async def test_who_was_idle_has_saved_nothing_up(made: Any, gate: Gate) -> None:
    preparing = made()
    gate.let(20)
    await asyncio.gather(*(run(preparing, CallerIdentity("a"), gate.steps("a", count=5)) for _ in range(4)))
    tasks = [
        run(preparing, CallerIdentity("a"), gate.steps("a", count=6)),
        run(preparing, CallerIdentity("b"), gate.steps("b", count=6)),
    ]
    await gate.until(21)
    gate.let(12)
    await asyncio.gather(*tasks)
    assert gate.order[20:].index("a") < 3


async def test_bytes_are_bounded_and_no_tenant_has_all(made: Any, gate: Gate) -> None:
    preparing = made(100_000)
    tasks = [run(preparing, CallerIdentity("a"), gate.steps("a"), size=25_000) for _ in range(3)]
    await gate.until(1)
    with pytest.raises(Unavailable) as refused:
        await preparing.run(CallerIdentity("a"), gate.steps("more"), 25_000, 100)
    assert refused.value.reason == "OVERLOADED"
    assert refused.value.retry_after and refused.value.retry_after >= 0.05
    assert preparing.refused == 1
    tasks.append(run(preparing, CallerIdentity("b"), gate.steps("b"), size=10_000))
    gate.let(4)
    await asyncio.gather(*tasks)
    assert preparing.room.held == 0


async def test_a_stream_waits_for_its_place(made: Any, gate: Gate) -> None:
    preparing = made(100_000)
    first = [run(preparing, CallerIdentity("a"), gate.steps("a"), size=25_000) for _ in range(3)]
    await gate.until(1)
    waiting = run(preparing, CallerIdentity("a"), gate.steps("later"), size=25_000, wait=True)
    gate.let(4)
    assert await waiting == "later"
    await asyncio.gather(*first)
    assert preparing.room.held == 0


async def test_who_leaves_while_waiting_frees_the_place_at_once(made: Any, gate: Gate) -> None:
    preparing = made()
    running = run(preparing, CallerIdentity("a"), gate.steps("running"))
    await gate.until(1)
    waiting = run(preparing, CallerIdentity("a"), gate.steps("waiting"), size=50_000)
    await asyncio.sleep(0)
    assert preparing.room.held == 51_000
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert preparing.room.held == 1000
    gate.let(2)
    await running
    assert gate.order == ["running"]


async def test_who_leaves_while_running_is_not_gone_on_with(made: Any, gate: Gate) -> None:
    preparing = made()
    running = run(preparing, CallerIdentity("a"), gate.steps("left", count=10))
    await gate.until(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert preparing.room.held == 1000  # its step can't be stopped
    gate.let(2)
    assert await preparing.run(CallerIdentity("a"), gate.steps("next"), 1000, 100) == "next"
    assert gate.order == ["left", "next"]
    assert "left" in gate.closed
    assert preparing.room.held == 0


async def test_a_long_step_leaves_a_thread_for_short_ones(made: Any, gate: Gate) -> None:
    preparing = made(10_000_000, threads=2)
    long = [
        run(preparing, CallerIdentity(tenant), gate.steps("long"), size=1_000_000, first=1_000_000)
        for tenant in ("a", "b", "c")
    ]
    await gate.until(1)
    short = run(preparing, CallerIdentity("d"), gate.steps("short"), first=PIECE)
    await gate.until(2)
    assert gate.order == ["long", "short"]
    gate.let(4)
    await asyncio.gather(short, *long)
    assert gate.most <= 2


async def test_an_error_is_the_callers(made: Any) -> None:
    preparing = made()

    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await preparing.run(CallerIdentity("a"), at_once(fails), 10, 10)
    assert await preparing.run(CallerIdentity("a"), at_once(lambda: 7), 10, 10) == 7
    assert preparing.room.held == 0


async def test_those_who_wait_when_it_ends_are_told(made: Any, gate: Gate) -> None:
    preparing = made()
    tasks = [run(preparing, CallerIdentity("a"), gate.steps("a", count=3)) for _ in range(3)]
    await gate.until(1)
    preparing.close()
    gate.let(1)
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(error, Unavailable)
        assert error.reason == "DRAINING"
    with pytest.raises(Unavailable):
        await preparing.run(CallerIdentity("a"), gate.steps("a"), 1, 1)


async def test_many_tenants_are_forgotten_again(made: Any) -> None:
    preparing = made()
    for number in range(3000):
        await preparing.run(CallerIdentity(str(number)), at_once(lambda: None), 1, 1)
    assert len(preparing._short._tenants._had) < 1100
