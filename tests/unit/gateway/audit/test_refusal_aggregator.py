"""Every refusal is accounted for, at a bounded rate of records."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.refusal_aggregator import (
    OTHERS,
    RefusalAggregator,
    RefusalAggregatorConfig,
    Refused,
    network,
    unauthenticated,
)
from tests.support.fixtures.clock import Clock

START = 1_800_000_000_000_000
SECOND = 1_000_000


def aggregator(clock: Clock[int], **bounds: int) -> RefusalAggregator:
    return RefusalAggregator(RefusalAggregatorConfig.model_validate({"singly_per_second": 3, **bounds}), clock)


def test_the_first_of_a_second_are_recorded_singly_and_the_rest_in_one_sum() -> None:
    clock = Clock(START)
    made = aggregator(clock)
    singly = 0
    for _ in range(1000):
        singly += made.record_singly(unauthenticated("ipv4:192.0.2.1:40000"), "TOKEN_MISSING")
        clock.now += 10
    [found] = made.drain()
    assert singly == 3
    assert (found.caller.peer, found.reason, found.count) == ("192.0.2.1", "TOKEN_MISSING", 997)
    assert (found.first, found.last) == (START + 30, START + 9990)
    assert made.summed == 997


def test_sums_are_told_once() -> None:
    made = aggregator(Clock(START))
    for _ in range(5):
        made.record_singly(unauthenticated("ipv4:192.0.2.1:1"), "TOKEN_MISSING")
    assert [(made.waiting, [found.count for found in made.drain()]) for _ in range(2)] == [(True, [2]), (False, [])]


def test_a_new_second_and_another_address_have_places_of_their_own() -> None:
    clock = Clock(START)
    made = aggregator(clock)
    assert [made.record_singly(unauthenticated("ipv4:192.0.2.1:1"), "X") for _ in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert made.record_singly(unauthenticated("ipv4:192.0.2.2:1"), "X")
    clock.now += SECOND
    assert made.record_singly(unauthenticated("ipv4:192.0.2.1:1"), "X")
    clock.now -= 2 * SECOND  # a wall clock that was set back
    assert made.record_singly(unauthenticated("ipv4:192.0.2.1:1"), "X")


def test_another_port_or_another_address_of_one_network_is_the_same_caller() -> None:
    made = aggregator(Clock(START))
    ports = [made.record_singly(unauthenticated(f"ipv4:192.0.2.1:{port}"), "X") for port in range(10)]
    hosts = [made.record_singly(unauthenticated(f"ipv6:%5B2001:db8::{host}%5D:1"), "X") for host in range(10)]
    assert (sum(ports), sum(hosts)) == (3, 3)


def test_many_addresses_cost_no_more_than_one() -> None:
    made = aggregator(Clock(START), singly_per_second_in_all=50, peers=100)
    singly = sum(
        made.record_singly(unauthenticated(f"ipv4:10.{n // 65536}.{n // 256 % 256}.{n % 256}:1"), "X")
        for n in range(10_000)
    )
    sums = made.drain()
    assert singly == 50
    assert len(sums) <= 101
    assert singly + sum(found.count for found in sums) == 10_000
    assert sum(found.count for found in sums if found.caller.peer == OTHERS) > 9000


def test_reasons_without_end_cost_no_more() -> None:
    made = aggregator(Clock(START), peers=1)
    for number in range(10_000):
        made.record_singly(unauthenticated("ipv4:192.0.2.1:1"), f"R{number}")
    sums = made.drain()
    assert len(sums) <= 100
    assert sum(found.count for found in sums) == 10_000 - 3


def caller(number: int, tenant: str = "acme") -> Refused:
    return Refused(tenant=tenant, subject=f"subject-{number}")


def test_a_caller_is_who_its_token_says_wherever_it_calls_from_and_strangers_use_up_nothing_of_it() -> None:
    made = aggregator(Clock(START), callers_singly_per_second=2, singly_per_second_in_all=1)
    unknown = [made.record_singly(unauthenticated(f"ipv4:192.0.2.{host}:1"), "TOKEN_MISSING") for host in range(5)]
    first = [made.record_singly(caller(1), "RATE_LIMITED") for _ in range(5)]
    assert (sum(unknown), first) == (1, [True, True, False, False, False])
    assert made.record_singly(caller(2), "RATE_LIMITED")
    assert not made.record_singly(caller(1), "SCOPE_MISSING")
    assert {(*found.caller, found.reason, found.count) for found in made.drain() if found.caller.tenant} == {
        ("", "acme", "subject-1", "RATE_LIMITED", 3),
        ("", "acme", "subject-1", "SCOPE_MISSING", 1),
    }
    assert made.summed == 4 + 4


def test_many_subjects_cost_no_more_than_few_and_their_tenant_remains() -> None:
    made = aggregator(Clock(START), callers_singly_per_second_in_all=50, callers=100)
    singly = sum(made.record_singly(caller(number), "X") for number in range(10_000))
    singly += sum(made.record_singly(caller(0, tenant), "X") for tenant in ("globex", "initech"))
    sums = made.drain()
    assert singly == 50
    assert len(sums) <= 100 + 3
    assert singly + sum(found.count for found in sums) == 10_002
    assert {found.caller.tenant for found in sums} == {"acme", "globex", "initech"}
    assert {found.caller for found in sums if not found.caller.subject} == {
        Refused(tenant="acme"),
        Refused(tenant="globex"),
        Refused(tenant="initech"),
    }


def test_many_tenants_cost_no_more() -> None:
    made = aggregator(Clock(START), callers_singly_per_second_in_all=1, callers=100)
    singly = sum(made.record_singly(caller(number, f"tenant-{number}"), f"R{number % 7}") for number in range(10_000))
    sums = made.drain()
    assert len(sums) <= 300
    assert singly + sum(found.count for found in sums) == 10_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    unauthenticated("ipv4:192.0.2.1:1"),
                    unauthenticated("unix:"),
                    unauthenticated("junk"),
                    caller(1),
                    caller(2),
                    caller(1, "g"),
                ]
            ),
            st.sampled_from(["TOKEN_MISSING", "TOKEN_EXPIRED"]),
            st.integers(0, SECOND),
            st.booleans(),
        ),
        max_size=100,
    )
)
def test_nothing_is_lost_and_each_second_is_bounded(refusals: list[tuple[Refused, str, int, bool]]) -> None:
    clock = Clock(START)
    made = aggregator(clock, singly_per_second_in_all=5, callers_singly_per_second_in_all=4, callers=2)
    singly: Counter[int] = Counter()
    told = 0
    for who, reason, wait, ask in refusals:
        clock.now += wait
        singly[clock.now // SECOND] += made.record_singly(who, reason)
        if ask:
            told += sum(found.count for found in made.drain())
    told += sum(found.count for found in made.drain())
    assert singly.total() + told == len(refusals)
    assert max(singly.values(), default=0) <= 5 + 4


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:443", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8::1]:443", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:443", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:443", "192.0.2.1"),
        ("unix:", "unix"),
        ("unix:/tmp/socket", "unix"),
        ("", ""),
    ],
)
def test_the_network_of_a_peer(peer: str, expected: str) -> None:
    assert network(peer) == expected


@given(st.text())
def test_any_name_has_a_network(peer: str) -> None:
    assert isinstance(network(peer), str)
