"""Keys are looked after by a timer, which ends when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

from meshgate.sealing import key_renewal


class Tended:
    """A keyring that counts."""

    def __init__(self) -> None:
        self.times = 0

    def tend(self) -> None:
        self.times += 1


class Sleep:
    """Ends when it is let."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self._over = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self._over.acquire()

    def end(self) -> None:
        self._over.release()


async def test_it_tends_after_every_wait_of_a_few_minutes() -> None:
    keyring: Any = Tended()
    sleep = Sleep()
    renewal = key_renewal.refresher(keyring, sleep)
    renewal.start()
    for times in range(3):
        assert 300 <= await sleep.asked.get() <= 900
        assert keyring.times == times
        sleep.end()
    await renewal.stop()


async def test_it_leaves_no_task() -> None:
    keyring: Any = Tended()
    before = asyncio.all_tasks()
    renewal = key_renewal.refresher(keyring, Sleep())
    await renewal.stop()  # one that never began
    renewal.start()
    assert asyncio.all_tasks() != before
    await renewal.stop()
    assert asyncio.all_tasks() == before


async def test_processes_that_began_together_do_not_stay_together() -> None:
    sleeps = [Sleep() for _ in range(8)]
    keyring: Any = Tended()
    made = [key_renewal.refresher(keyring, sleep) for sleep in sleeps]
    for renewal in made:
        renewal.start()
    assert len({await sleep.asked.get() for sleep in sleeps}) == len(sleeps)
    for renewal in made:
        await renewal.stop()
