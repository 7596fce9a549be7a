"""Pending calls never hold more slots than a limit has, and none once they have ended."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.limits.config import LimitsConfig
from gateway.limits.pending import PendingCalls
from gateway.limits.plan import Plans
from meshgate.errors import LimitExceeded
from tests.support.fixtures.limits import call_of, caller, generate

LIMITS = {"principal": {"concurrent_calls": 3, "concurrent_streams": 2}, "tenant": {"concurrent_calls": 5}}
OWN = {**LIMITS, "models": {"big": {"principal": {"concurrent_calls": 4}}}}


class Setting:
    def __init__(self, limits: Any, max_calls: int = 5000) -> None:
        self.plans = Plans(LimitsConfig.model_validate(limits))
        self.pending = PendingCalls(self.plans, max_calls)

    def enter(self, subject: str = "bob", *, streams: bool = False, tenant: str = "acme") -> Call:
        call = call_of(generate(), "")
        call.principal = caller(subject, tenant)
        self.pending.enter(call, call.principal, streams=streams)
        return call

    def begin(self, call: Call, model: str, *, streams: bool = False) -> None:
        assert call.principal is not None
        plan = self.plans.of(call.principal.tenant, call.principal.subject, model, streams=streams)
        self.pending.begun(call, plan.concurrency)

    def refused(self, **who: Any) -> tuple[str, str]:
        with pytest.raises(LimitExceeded) as caught:
            self.enter(**who)
        assert (caught.value.reason, caught.value.retry_after) == ("CONCURRENCY_LIMITED", None)
        return caught.value.subject, caught.value.limit


def test_each_scope_refuses_in_its_own_name() -> None:
    setting = Setting(LIMITS)
    for _ in range(3):
        setting.enter()
    assert setting.refused() == ("principal:acme bob", "concurrent_calls")
    for _ in range(2):
        setting.enter("eve", streams=True)
    assert setting.refused(subject="eve", streams=True)[0] in ("principal:acme eve", "tenant:acme")
    assert setting.refused(subject="eve") == ("tenant:acme", "concurrent_calls")
    setting.enter(tenant="globex")


def test_a_refusal_holds_nothing() -> None:
    setting = Setting(LIMITS)
    for _ in range(3):
        setting.enter()
    held = len(setting.pending)
    setting.refused()
    assert len(setting.pending) == held


def test_what_begins_holds_what_its_plan_says() -> None:
    setting = Setting(OWN)
    first = setting.enter()
    setting.begin(first, "big")
    calls = [first, *(setting.enter() for _ in range(3))]
    for call in calls[1:]:
        setting.begin(call, "small")
    assert {each.name for each in first.slots} == {"concurrent_calls of big", "concurrent_calls"}
    setting.enter()  # it may be for `big`
    for call in calls:
        setting.pending.leave(call)


def test_a_share_of_the_process_bounds_whom_no_limit_bounds() -> None:
    setting = Setting({level: {"concurrent_calls": 10**6} for level in ("principal", "tenant")}, max_calls=100)
    calls = [setting.enter() for _ in range(50)]
    assert setting.refused() == ("principal:acme bob", "concurrent_calls")
    others = [setting.enter("eve") for _ in range(25)]
    assert setting.refused(subject="eve") == ("tenant:acme", "concurrent_calls")
    for call in calls:
        setting.begin(call, "")
    calls += [setting.enter() for _ in range(50)]  # what has begun is bounded by its limit alone
    for call in (*calls, *others):
        setting.pending.leave(call)
    assert len(setting.pending) == 0


@given(
    limits=st.sampled_from([LIMITS, OWN, {"total": {"concurrent_calls": 2}}, {}]),
    steps=st.lists(
        st.tuples(st.sampled_from(["enter", "begin", "leave"]), st.integers(0, 9), st.booleans(), st.booleans())
    ),
)
def test_nothing_is_held_once_all_are_gone(limits: Any, steps: list[tuple[str, int, bool, bool]]) -> None:
    setting = Setting(limits, max_calls=8)
    calls: list[tuple[Call, bool]] = []
    for what, which, streams, big in steps:
        if what == "enter":
            try:
                calls.append((setting.enter(f"{which % 3}", streams=streams), streams))
            except LimitExceeded:
                continue
        elif calls:
            call, streams = calls[which % len(calls)]
            if what == "begin":
                setting.begin(call, "big" if big else "small", streams=streams)
            else:
                setting.pending.leave(call)
                calls.remove((call, streams))
    for call, _ in calls:
        setting.pending.leave(call)
    assert len(setting.pending) == 0
