"""Names in the configuration that refer to something: what refers to nothing stops the start, or is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.app import Gateway
from gateway.authorisation import references
from gateway.authorisation.policy import PolicyConfig
from gateway.authorisation.reference_watch import ReferenceWatch
from gateway.config import GatewayConfig
from gateway.limits import LimitsConfig
from gateway.limits.plan import Plans
from gateway.routes import PUBLIC_ROUTES, SEALED_ROUTES
from meshgate.rpc.contract import METHODS, check_pattern
from meshgate.runtime.config import ConfigError
from meshgate.v1.models_pb2 import Model

LISTED = [
    ("generation", Model(name="SmolLM2-135M-Instruct", default=True, aliases=["smollm2", "small"])),
    ("embedding", Model(name="all-MiniLM-L6-v2", default=True, aliases=["minilm"])),
    ("classification", Model(name="sentiment", default=True)),
]


def gateway(tmp_path: Path, **sections: Any) -> GatewayConfig:
    pems = {"certificate": tmp_path / "a.pem", "key": tmp_path / "a-key.pem", "ca": tmp_path / "ca.pem"}
    return GatewayConfig.model_validate(
        {
            "server": {"tls": pems},
            "mesh": pems,
            "backends": {"generation": {"target": "127.0.0.1:1"}},
            "issuers": [{"issuer": "https://i.test", "audience": "a", "jwks": tmp_path / "jwks.json"}],
            "policy": {},
            "limits": {},
            "audit": {"directory": tmp_path, "keys": tmp_path},
            "sealing": {"keys": tmp_path},
            **sections,
        }
    )


def why_not(tmp_path: Path, **sections: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        gateway(tmp_path, **sections)
    return str(caught.value)


@pytest.mark.parametrize("method", sorted(set(PUBLIC_ROUTES) - set(SEALED_ROUTES)))
def test_a_method_is_known_and_a_typo_of_it_is_told_what_was_meant(tmp_path: Path, method: str) -> None:
    service, _, name = method.rpartition("/")
    for good in (method, f"{service}/*"):
        gateway(tmp_path, policy={"scopes": {"x": [good]}})
        check_pattern(good)
    typos = (f"{service}/{name[:-1]}", f"{service}/{name}s", f"{service}/{name.lower()}", f"{service}/{name[1:]}")
    services = (f"{service}s/{name}", f"{service.replace('meshgate', 'mashgate')}/{name}", f"{service[:-1]}/*")
    for wrong in (*typos, *services, service.replace("v1", "v2") + "/*"):
        told = why_not(tmp_path, policy={"scopes": {"x": [wrong]}})
        assert "policy.scopes" in told and "did you mean '/meshgate.v1." in told, wrong
        with pytest.raises(ValueError, match="did you mean"):
            check_pattern(wrong)


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/a.B/C", "/a.B/*"])
def test_a_method_of_something_else_stops_the_start(tmp_path: Path, method: str) -> None:
    assert "not a method of the contract" in why_not(tmp_path, policy={"scopes": {"x": [method]}})


@pytest.mark.parametrize("method", [*SEALED_ROUTES, "/meshgate.v1.SealedService/*"])
def test_a_scope_for_envelopes_would_never_apply(tmp_path: Path, method: str) -> None:
    assert "method inside" in why_not(tmp_path, policy={"scopes": {"x": [method]}})


def test_peers_are_held_to_the_contract_and_to_health() -> None:
    for method in (*METHODS, "/*", "/meshgate.v1.*", "/grpc.health.v1.*", "/grpc.health.v1.Health/*"):
        check_pattern(method)


@pytest.mark.parametrize("scope", ["generat", "Generate", "embeds", "admin"])
def test_a_map_that_grants_no_scope_of_the_policy_stops_the_start(tmp_path: Path, scope: str) -> None:
    issuer = {"issuer": "https://i.test", "audience": "a", "jwks": tmp_path / "jwks.json"}
    told = why_not(tmp_path, issuers=[{**issuer, "scope_map": {"role": ["models", scope]}}])
    assert f"grants {scope!r}" in told
    assert ("did you mean" in told) == (scope != "admin")
    gateway(tmp_path, issuers=[{**issuer, "scope_map": {"role": ["models", "generate"]}}])


TABLES: dict[str, Any] = {
    "policy.tenants": {"policy": {"tenants": {"acmee": {"models": ["*"]}, "*": {}}}},
    "limits.tenants": {"limits": {"tenants": {"acmee": {}}}},
    "metrics.tenants": {"metrics": {"tenants": ["acmee"]}},
}


@pytest.mark.parametrize("table", TABLES)
def test_a_tenant_whom_no_issuer_may_name_stops_the_start(tmp_path: Path, table: str) -> None:
    issuer = {"issuer": "https://i.test", "audience": "a", "jwks": tmp_path / "jwks.json"}
    for closed in ([{**issuer, "tenants": ["acme"]}], [{**issuer, "tenant": "acme"}]):
        told = why_not(tmp_path, issuers=closed, **TABLES[table])
        assert f"{table}: no issuer may name the tenant 'acmee'; did you mean 'acme'?" in told
    gateway(tmp_path, issuers=[issuer], **TABLES[table])
    both = [{**issuer, "tenant": "acme"}, {**issuer, "audience": "b", "tenants": ["acmee"]}]
    gateway(tmp_path, issuers=both, **TABLES[table])


@pytest.mark.parametrize(
    ("tenant", "stops"),
    [
        ({"models": ["one"], "defaults": {"generation": "two"}}, True),
        ({"models": [], "defaults": {"generation": "one"}}, True),
        ({"models": ["one", "two"], "defaults": {"generation": "one", "embedding": "three"}}, True),
        ({"models": ["one"], "defaults": {"generation": "one"}}, False),
        ({"models": ["*"], "defaults": {"generation": "any"}}, False),
        ({"models": ["one", "*"], "defaults": {"generation": "any"}}, False),
    ],
)
@pytest.mark.parametrize("name", ["acme", "*"])
def test_a_default_that_its_tenant_may_not_use_stops_the_start(
    tmp_path: Path, tenant: dict[str, Any], stops: bool, name: str
) -> None:
    config = gateway(tmp_path, policy={"tenants": {name: tenant}})
    if not stops:
        config.check_startable()
        return
    for start in (config.check_startable, lambda: Gateway(config)):
        with pytest.raises(
            ConfigError, match=r"policy\.tenants\..*\.defaults\.(generation|embedding): this tenant may"
        ):
            start()


def judged(policy: dict[str, Any], limits: dict[str, Any]) -> list[tuple[str, str, str]]:
    made = references.unmatched(PolicyConfig.model_validate(policy), LimitsConfig.model_validate(limits), LISTED)
    return [(each.key, each.name, each.kind) for each in made]


@pytest.mark.parametrize(
    ("policy", "limits", "found"),
    [
        ({}, {"models": {"SmolLM2-135M-Instruct": {}}}, []),
        ({}, {"models": {"smollm2": {}}}, []),
        ({}, {"models": {"smolm2": {}}}, [("limits.models", "smolm2", "absent")]),
        ({}, {"models": {"small": {}, "smollm2": {}}}, [("limits.models", "small", "shadowed")]),
        ({}, {"models": {"small": {}, "SmolLM2-135M-Instruct": {}}}, [("limits.models", "small", "shadowed")]),
        ({}, {"tenants": {"acme": {"models": {"minilm": {}}}}}, []),
        ({}, {"tenants": {"acme": {"models": {"x": {}}}}}, [("limits.tenants.acme.models", "x", "absent")]),
        ({"tenants": {"acme": {"models": ["sentiment", "*"]}}}, {}, []),
        ({"tenants": {"acme": {"models": ["minilm"]}}}, {}, [("policy.tenants.acme.models", "minilm", "alias")]),
        ({"tenants": {"acme": {"models": ["Sentiment"]}}}, {}, [("policy.tenants.acme.models", "Sentiment", "absent")]),
        ({"tenants": {"*": {"models": ["*"], "defaults": {"generation": "smollm2"}}}}, {}, []),
        (
            {"tenants": {"*": {"models": ["*"], "defaults": {"generation": "minilm"}}}},
            {},
            [("policy.tenants.*.defaults.generation", "minilm", "absent")],
        ),
        (
            {"tenants": {"a": {"models": ["sentiment", "minilm"], "defaults": {"embedding": "minilm"}}}},
            {},
            [
                ("policy.tenants.a.models", "minilm", "alias"),
                ("policy.tenants.a.defaults.embedding", "minilm", "denied"),
            ],
        ),
    ],
)
def test_names_of_models_are_compared_with_what_services_list(
    policy: dict[str, Any], limits: dict[str, Any], found: list[tuple[str, str, str]]
) -> None:
    assert judged(policy, limits) == found


def test_what_applies_to_nothing_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    policy = PolicyConfig.model_validate({"tenants": {"acme": {"models": ["minilm"]}}})
    watch = ReferenceWatch(policy, LimitsConfig.model_validate({"models": {"smolm2": {}}}))
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            watch.look(LISTED)
    told = [(record.levelname, record.__dict__["key"], record.__dict__["why"]) for record in caplog.records]
    assert told == [
        ("WARNING", "policy.tenants.acme.models", "is an alias of 'all-MiniLM-L6-v2': write that name here"),
        ("WARNING", "limits.models", "is not a model that a service lists now; did you mean 'smollm2'?"),
    ]
    assert watch.counts() == {"absent": 1, "alias": 1, "shadowed": 0, "denied": 0}
    caplog.clear()
    with caplog.at_level(logging.INFO):
        watch.look([*LISTED, ("generation", Model(name="smolm2"))])
    assert [record.message for record in caplog.records] == ["a name in the configuration applies now"]
    assert watch.counts()["absent"] == 0


def test_a_thousand_names_that_are_not_there_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    limits = LimitsConfig.model_validate({"models": {f"m{number}": {} for number in range(1000)}})
    ReferenceWatch(PolicyConfig(), limits).look([])
    assert len(caplog.records) == 17


@pytest.mark.parametrize("where", ["all", "tenant"])
@pytest.mark.parametrize("said", ["SmolLM2-135M-Instruct", "smollm2", "small"])
def test_limits_that_are_said_for_any_name_of_a_model_apply_to_it(where: str, said: str) -> None:
    models = {"models": {said: {"tenant": {"tokens_per_minute": 60}}}}
    plans = Plans(LimitsConfig.model_validate(models if where == "all" else {"tenants": {"acme": models}}))
    before = plans.of("acme", "bob", "SmolLM2-135M-Instruct", streams=False)
    assert bool(before.tokens) == (said == "SmolLM2-135M-Instruct")
    plans.set_aliases(references.aliases(LISTED))
    (bucket,) = plans.of("acme", "bob", "SmolLM2-135M-Instruct", streams=False).tokens
    assert bucket.name == "tokens_per_minute of SmolLM2-135M-Instruct"
    assert not plans.of("acme", "bob", "sentiment", streams=False).tokens
    plans.set_aliases({"SmolLM2-135M-Instruct": (), "another": ("small", "smollm2")})
    assert bool(plans.of("acme", "bob", "another", streams=False).tokens) == (said != "SmolLM2-135M-Instruct")


def test_a_limit_of_a_tenant_by_alias_and_of_all_by_name_go_together() -> None:
    limits = {
        "models": {"SmolLM2-135M-Instruct": {"tenant": {"concurrent_calls": 7}}},
        "tenants": {"acme": {"models": {"small": {"tenant": {"tokens_per_minute": 60}}}}},
    }
    plans = Plans(LimitsConfig.model_validate(limits))
    plans.set_aliases(references.aliases(LISTED))
    plan = plans.of("acme", "bob", "SmolLM2-135M-Instruct", streams=False)
    assert [bucket.limit.burst for bucket in plan.tokens] == [60]
    assert 7 in [places.maximum for places in plan.concurrency]


def test_no_model_has_no_limits_of_its_own() -> None:
    with pytest.raises(ValidationError):
        LimitsConfig.model_validate({"models": {"": {}}})
