"""While the store is down no call waits for it, and one try now and then finds that it is back."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway.limits.config import LimitsConfig
from gateway.limits.failover import CircuitBreaker, FailoverStore
from gateway.limits.gcra import SECOND
from gateway.limits.memory_store import MemoryStore
from gateway.limits.plan import Plan, Plans
from gateway.limits.store import Grant, Refusal, StoreDown
from meshgate.errors import Unavailable
from tests.support.fixtures.limits import Clock

PLAN = Plans(
    LimitsConfig.model_validate(
        {"principal": {"requests_per_second": 1, "burst": 8, "tokens_per_minute": 60, "concurrent_calls": 100}}
    )
).of("acme", "bob", "", streams=False)


class Flaky(MemoryStore):
    """A store that is down when a test says so."""

    down = False
    asked = 0
    answers: asyncio.Event | None = None

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        self.asked += 1
        if self.answers is not None:
            await self.answers.wait()
        if self.down:
            raise StoreDown from ConnectionRefusedError(111, "Connection refused")
        return await super().take(plan, least, cost)


class Setting:
    def __init__(self, *, local: bool, processes: int = 1) -> None:
        self.clock = Clock()
        self.shared = Flaky(self.clock)
        self.local = MemoryStore(self.clock) if local else None
        self.counts: Counter[str] = Counter()
        self.failover = FailoverStore(
            self.shared, self.local, processes, self.counts, CircuitBreaker(self.clock), "store:6379"
        )


async def test_deny_refuses_and_soon_without_asking() -> None:
    setting = Setting(local=False)
    setting.shared.down = True
    for _ in range(50):
        with pytest.raises(Unavailable) as caught:
            await setting.failover.take(PLAN, 0, 0)
        assert (caught.value.reason, caught.value.retry_after) == ("LIMITS_UNAVAILABLE", 1.0)
    assert setting.shared.asked == 3
    assert setting.counts == {"denied": 50, "down": 1}


async def test_the_log_says_which_store_is_down_and_why(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting(local=True)
    setting.shared.down = True
    for _ in range(10):
        await setting.failover.take(PLAN, 0, 0)
    (line,) = caplog.records
    assert line.getMessage() == "limits store: down"
    said = vars(line)
    assert (said["store"], said["address"], said["why"]) == ("down", "store:6379", "Connection refused")


async def test_one_try_a_second_while_it_is_down_and_then_all_again() -> None:
    setting = Setting(local=True)
    setting.shared.down = True
    for _ in range(10):
        await setting.failover.take(PLAN, 0, 0)
    setting.clock.now += SECOND
    for _ in range(5):
        await setting.failover.take(PLAN, 0, 0)
    assert setting.shared.asked == 4
    setting.shared.down = False
    setting.clock.now += SECOND
    answers = [await setting.failover.take(PLAN, 0, 0) for _ in range(5)]
    assert [answer.store is setting.shared for answer in answers if isinstance(answer, Grant)] == [True] * 5
    assert setting.counts["up"] == 1


async def test_one_tries_and_the_others_do_not_wait() -> None:
    setting = Setting(local=True)
    setting.shared.down = True
    for _ in range(3):
        await setting.failover.take(PLAN, 0, 0)
    setting.clock.now += SECOND
    setting.shared.answers = asyncio.Event()
    trying = asyncio.create_task(setting.failover.take(PLAN, 0, 0))
    await asyncio.sleep(0)
    for _ in range(3):
        await setting.failover.take(PLAN, 0, 0)
    assert setting.shared.asked == 4
    setting.shared.down = False
    setting.shared.answers.set()
    answer = await trying
    assert isinstance(answer, Grant)
    assert answer.store is setting.shared


async def test_one_slow_answer_is_no_outage() -> None:
    setting = Setting(local=True)
    for setting.shared.down in (True, True, False, True, True, False):
        await setting.failover.take(PLAN, 0, 0)
    assert setting.shared.asked == 6
    assert setting.counts == {"local": 4}


async def test_each_process_gives_out_its_share() -> None:
    settings = [Setting(local=True, processes=4) for _ in range(4)]
    granted = 0
    for setting in settings:
        setting.shared.down = True
        for _ in range(20):
            granted += isinstance(await setting.failover.take(PLAN, 0, 0), Grant)
    assert granted == 8


async def test_more_than_a_share_gets_the_whole_share() -> None:
    setting = Setting(local=True, processes=4)
    setting.shared.down = True
    answer = await setting.failover.take(PLAN, 60, 60)
    assert isinstance(answer, Grant)
    assert answer.tokens == 15


async def test_whoever_granted_it_hears_of_its_end() -> None:
    setting = Setting(local=True)
    before = await setting.failover.take(PLAN, 10, 10)
    setting.shared.down = True
    during = await setting.failover.take(PLAN, 10, 10)
    assert isinstance(before, Grant)
    assert isinstance(during, Grant)
    setting.failover.settle(before, 10)
    setting.failover.settle(during, 10)
    assert setting.shared._taken == {}
    assert setting.local is not None
    assert setting.local._taken == {}
