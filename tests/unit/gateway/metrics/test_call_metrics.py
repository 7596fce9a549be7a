"""What the gateway counts: every call once, under names that no caller can choose."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.call import Call
from gateway.metrics import outcome
from gateway.metrics.call_metrics import OTHER, UNKNOWN, CallMetrics, GatewayMetricsConfig
from gateway.metrics.outcome import Outcome
from gateway.principal import Principal
from gateway.routes import PUBLIC_ROUTES
from meshgate import errors

GENERATE = "/meshgate.v1.GenerationService/Generate"
NAME = GENERATE.removeprefix("/")


def call(method: str = GENERATE, tenant: str | None = "acme", **fields: object) -> Call:
    made = Call(method=method, peer="ipv4:192.0.2.1:1", authorization=None, deadline=None)
    if tenant is not None:
        made.principal = Principal(tenant, "alice", frozenset(), "0" * 16, 0, "https://issuer.test")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def telemetry(*tenants: str) -> CallMetrics:
    return CallMetrics(GatewayMetricsConfig(tenants=tenants))


def told(made: CallMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All that Prometheus would read."""
    registry = CollectorRegistry()
    registry.register(made)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"meshgate_gateway_{name}", frozenset(labels.items())


def done(made: CallMetrics, one: Call, how: Outcome = outcome.OK) -> None:
    made.began(one)
    made.ended(one, how)


def test_a_call_is_in_flight_until_it_has_ended() -> None:
    made = telemetry()
    one, other = call(), call()
    made.began(one)
    made.began(other)
    assert told(made)[key("calls_in_flight", method=NAME)] == 2
    made.ended(one, outcome.OK)
    made.ended(other, outcome.CANCELLED)
    found = told(made)
    assert found[key("calls_in_flight", method=NAME)] == 0
    assert found[key("calls_total", method=NAME, tenant="", code="OK")] == 1
    assert found[key("calls_total", method=NAME, tenant="", code="CANCELLED")] == 1


def test_bytes_and_tokens_both_ways() -> None:
    made = telemetry()
    for _ in range(2):
        done(made, call(bytes_in=10, bytes_out=200, input_tokens=3, output_tokens=5))
    found = told(made)
    amounts = {
        (name, way): found[key(f"{name}_total", method=NAME, tenant="", direction=way)]
        for name in ("message_bytes", "tokens")
        for way in ("in", "out")
    }
    assert list(amounts.values()) == [20, 400, 6, 10]


def test_the_time_of_stages_adds_up_to_that_of_the_call() -> None:
    made = telemetry()
    done(made, call(stages={"authenticate": 100, "forward": 900}))
    found = told(made)
    assert found[key("call_seconds_sum", method=NAME)] == pytest.approx(0.001)
    assert found[key("stage_seconds_sum", stage="forward")] == pytest.approx(0.0009)
    assert found[key("stage_seconds_bucket", stage="forward", le="0.000512")] == 0
    assert found[key("stage_seconds_bucket", stage="forward", le="0.001024")] == 1
    assert found[key("stage_seconds_count", stage="authenticate")] == 1


def test_a_refusal_is_not_a_failure() -> None:
    made = telemetry()
    done(made, call(tenant=None), outcome.of(errors.Unauthenticated("no", reason="TOKEN_MISSING")))
    done(made, call(admitted=True), outcome.of(errors.Unavailable("no", reason="BACKEND_UNAVAILABLE")))
    found = told(made)
    assert found[key("refused_calls_total", reason="TOKEN_MISSING")] == 1
    assert found[key("failed_calls_total", reason="BACKEND_UNAVAILABLE")] == 1
    assert key("refused_calls_total", reason="BACKEND_UNAVAILABLE") not in found


def test_only_named_tenants_have_series() -> None:
    made = telemetry("acme")
    for tenant in ("acme", "other", "third", None):
        done(made, call(tenant=tenant))
    found = told(made)
    assert found[key("calls_total", method=NAME, tenant="acme", code="OK")] == 1
    assert found[key("calls_total", method=NAME, tenant="", code="OK")] == 3
    assert not [labels for _, labels in found if ("tenant", "other") in labels]


def test_no_caller_makes_series() -> None:
    made = telemetry()
    before = len(told(made))
    for number in range(10_000):
        done(made, call(method=f"/evil.Service/{number}", tenant=f"t{number}"), Outcome("INTERNAL", f"R{number}"))
    found = told(made)
    assert found[key("calls_total", method=UNKNOWN, tenant="", code="INTERNAL")] == 10_000
    assert found[key("refused_calls_total", reason=OTHER)] == 10_000 - 100
    assert len(found) - before < 150


def test_every_method_is_told_before_its_first_call() -> None:
    methods = {dict(labels).get("method") for _, labels in told(telemetry())}
    assert {path.removeprefix("/") for path in PUBLIC_ROUTES} <= methods


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**30), max_size=20))
def test_no_time_is_lost_and_each_is_within_its_bucket(microseconds: list[int]) -> None:
    made = telemetry()
    for one in microseconds:
        done(made, call(stages={"forward": one}))
    found = told(made)
    assert not microseconds or found[key("stage_seconds_sum", stage="forward")] == pytest.approx(
        sum(microseconds) / 1e6
    )
    for (name, labels), count in found.items():
        if name == "meshgate_gateway_stage_seconds_bucket":
            assert count == sum(one / 1e6 < float(dict(labels)["le"]) for one in microseconds)


ENDS: Mapping[str, tuple[BaseException, Outcome]] = {
    "ours": (errors.LimitExceeded("no", retry_after=1), Outcome("RESOURCE_EXHAUSTED", "RATE_LIMITED")),
    "late": (TimeoutError("secret"), outcome.DEADLINE_EXCEEDED),
    "gone": (asyncio.CancelledError("secret"), outcome.CANCELLED),
    "closed": (GeneratorExit(), outcome.CANCELLED),
    "a defect": (RuntimeError("secret"), outcome.INTERNAL),
}


@pytest.mark.parametrize("name", ENDS)
def test_how_a_call_ended(name: str) -> None:
    error, expected = ENDS[name]
    assert outcome.of(error) == expected
