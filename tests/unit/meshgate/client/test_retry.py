"""When the SDK tries again: overload a few times, as the server asks, within the deadline; a limit never."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshgate import errors
from meshgate.client.options import RetryPolicy, channel_options, retry_policy
from meshgate.client.retry import Attempts, Throttle

POLICY = RetryPolicy(attempts=4, first=0.1, longest=0.3, factor=2, throttle_tokens=10, throttle_ratio=0.5)
OVERLOADED = errors.Unavailable("full", reason="OVERLOADED")
KEY_UNKNOWN = errors.InvalidArgument("key", reason="SEAL_KEY_UNKNOWN")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def attempts(timeout: float | None = None, *, clock: Clock | None = None, throttle: Throttle | None = None) -> Attempts:
    """Attempts whose jitter is always the most there is."""
    return Attempts(POLICY, throttle or Throttle(POLICY), timeout, clock=clock or Clock(), uniform=lambda _, most: most)


def test_overload_is_tried_again_with_growing_pauses() -> None:
    made = attempts()
    pauses = [made.next(OVERLOADED) for _ in range(4)]
    assert pauses == [pytest.approx(0.12), pytest.approx(0.24), pytest.approx(0.36), None]


def test_the_server_says_when() -> None:
    made = attempts()
    assert made.next(errors.Unavailable("draining", retry_after=7.5)) == 7.5
    assert made.next(errors.Unavailable("draining", retry_after=0.0)) == 0.0


@pytest.mark.parametrize(
    "error",
    [
        errors.LimitExceeded("limit", retry_after=0.1),
        errors.DeadlineExceeded("late"),
        errors.Internal("ours"),
        errors.InvalidArgument("seal", reason="SEAL_INVALID"),
        errors.InvalidArgument("replay", reason="SEAL_REPLAYED"),
        errors.Unauthenticated("who"),
        errors.Cancelled("gone"),
    ],
)
def test_nothing_else_is_tried_again(error: errors.MeshError) -> None:
    assert attempts().next(error) is None


def test_no_pause_reaches_past_the_deadline() -> None:
    clock = Clock()
    made = attempts(1.0, clock=clock)
    assert made.next(errors.Unavailable("full", retry_after=0.9)) == 0.9
    clock.now = 0.95
    assert made.remaining() == pytest.approx(0.05)
    assert made.next(OVERLOADED) is None
    clock.now = 2
    assert made.remaining() == 0


def test_an_unknown_key_is_asked_for_anew_once() -> None:
    made = attempts()
    assert made.next(KEY_UNKNOWN) == 0
    assert made.next(KEY_UNKNOWN) is None


def test_while_most_calls_fail_none_is_tried_again() -> None:
    throttle = Throttle(POLICY)
    for _ in range(4):
        assert attempts(throttle=throttle).next(OVERLOADED) is not None
    assert attempts(throttle=throttle).next(OVERLOADED) is None
    for _ in range(4):
        attempts(throttle=throttle).succeeded()
    assert attempts(throttle=throttle).next(OVERLOADED) is not None


def config(**options: Any) -> Any:
    return json.loads(dict(channel_options(options.items()))["grpc.service_config"])


def test_grpc_retries_unavailable_alone() -> None:
    policies = [item["retryPolicy"] for item in config()["methodConfig"] if "retryPolicy" in item]
    assert [policy["retryableStatusCodes"] for policy in policies] == [["UNAVAILABLE"]]
    assert dict(channel_options())["grpc.enable_retries"] == 1


def test_grpc_does_not_retry_sealed_calls() -> None:
    """An envelope opens once: the same bytes again would be SEAL_REPLAYED."""
    own = [item for item in config()["methodConfig"] if {"service": "meshgate.v1.SealedService"} in item["name"]]
    assert len(own) == 1
    assert "retryPolicy" not in own[0]


def test_sealed_calls_follow_the_policy_of_plain_ones() -> None:
    plain = next(item["retryPolicy"] for item in config()["methodConfig"] if "retryPolicy" in item)
    policy = retry_policy()
    assert policy.attempts == plain["maxAttempts"]
    assert f"{policy.first}s" == plain["initialBackoff"]
    assert policy.throttle_tokens == config()["retryThrottling"]["maxTokens"]


def test_the_callers_own_options_win() -> None:
    assert dict(channel_options([("grpc.max_receive_message_length", 5)]))["grpc.max_receive_message_length"] == 5
