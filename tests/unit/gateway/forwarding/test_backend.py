"""What of the gateway's configuration gRPC is told, and what is refused before it is told anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.forwarding.backend import BackendConfig
from gateway.routes import MODEL_ROUTES
from meshgate.rpc import balancing, channel
from meshgate.services import SERVICES

CHANGING = {"DeleteClassifier", "RollbackClassifier"}
"""One message, but sent twice it is not the same as sent once."""


def told(**section: Any) -> dict[str, Any]:
    config = BackendConfig.model_validate({"target": "dns:///x:1", **section})
    return balancing.service_config(config, "pkg.Service", ("Ask",))


def test_the_default_is_all_replicas_in_turn_that_are_healthy_with_retries_of_what_is_safe() -> None:
    made = told()
    assert made["loadBalancingConfig"] == [{"round_robin": {}}]
    assert made["healthCheckConfig"] == {"serviceName": "pkg.Service"}
    (method,) = made["methodConfig"]
    assert method["name"] == [{"service": "pkg.Service", "method": "Ask"}]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert made["retryThrottling"] == {"maxTokens": 100, "tokenRatio": 0.1}


def test_one_attempt_is_no_retry_policy() -> None:
    made = told(retries={"attempts": 1})
    assert "methodConfig" not in made
    assert "retryThrottling" not in made


def test_health_checks_can_be_left_out() -> None:
    assert "healthCheckConfig" not in told(health_checks=False)


def test_outliers_are_judged_around_the_policy() -> None:
    made = told(policy="weighted_round_robin", outliers={"ejected_seconds": 2}, weights={"blackout_seconds": 0.5})
    ((name, outer),) = made["loadBalancingConfig"][0].items()
    assert name == "outlier_detection_experimental"
    assert (outer["baseEjectionTime"], outer["maxEjectionTime"]) == ("2.000s", "20.000s")
    assert outer["childPolicy"][0]["weighted_round_robin"]["blackoutPeriod"] == "0.500s"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"policy": "ring_hash"}, "policy"),
        ({"retries": {"attempts": 6}}, "retries.attempts"),
        ({"retries": {"throttle_tokens": 0}}, "retries.throttle_tokens"),
        ({"weights": {"update_seconds": 0}}, "weights.update_seconds"),
        ({"outliers": {"failed_percent": 0}}, "outliers.failed_percent"),
        ({"outliers": {"typo": 1}}, "outliers.typo"),
        ({"policy": "pick_first", "outliers": {}}, "outliers: pick_first"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(section: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as refused:
        told(**section)
    found = [".".join(map(str, error["loc"])) + error["msg"] for error in refused.value.errors()]
    assert any(key in text for text in found)


def test_every_method_of_one_message_is_known_to_be_safe_to_repeat_or_not() -> None:
    """So that one that is new is thought about."""
    for path, route in MODEL_ROUTES.items():
        method, safe = path.rpartition("/")[2], SERVICES[route.backend].repeatable
        if route.client_streams:
            assert method not in safe
        else:
            assert (method in safe) != (method in CHANGING)


def test_without_a_service_config_nothing_is_retried() -> None:
    assert dict(channel.mesh_options())["grpc.enable_retries"] == 0
    assert "grpc.service_config" not in dict(channel.mesh_options())


def test_the_name_in_certificates_is_the_replicas_own_where_it_is_given() -> None:
    options = dict(channel.mesh_options(service_config=told(), server_name="embedding"))
    assert options["grpc.default_authority"] == "embedding"
    assert json.loads(options["grpc.service_config"]) == told()
