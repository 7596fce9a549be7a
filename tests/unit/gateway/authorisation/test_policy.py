"""Deny by default: what the table does not say, nobody may do."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.authorisation.policy import DEFAULT_SCOPES, Policy, PolicyConfig, TenantPolicy
from gateway.principal import Principal
from meshgate.errors import PermissionDenied

GENERATE = "/meshgate.v1.GenerationService/Generate"
EMBED = "/meshgate.v1.EmbeddingService/Embed"


def caller(*scopes: str, tenant: str = "acme") -> Principal:
    return Principal(tenant, "bob", frozenset(scopes), "0" * 16, 0, "https://issuer.test")


def method_reason(policy: Policy, principal: Principal, method: str) -> str | None:
    try:
        policy.authorise_method(principal, method)
    except PermissionDenied as error:
        return error.reason
    return None


def policy(**tenants: TenantPolicy) -> Policy:
    return Policy(PolicyConfig(tenants={"*" if name == "everyone" else name: own for name, own in tenants.items()}))


def test_a_scope_covers_its_methods_and_no_others() -> None:
    assert method_reason(policy(), caller("generate"), GENERATE) is None
    assert method_reason(policy(), caller("generate"), EMBED) == "SCOPE_MISSING"
    assert method_reason(policy(), caller("embed", "generate"), EMBED) is None


@pytest.mark.parametrize(
    "method",
    [
        "",
        "/",
        "*",
        "/meshgate.v1.GenerationService",
        "/meshgate.v1.GenerationService/Generate/x",
        "/meshgate.v1.GenerationServiceX/Generate",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/meshgate.v1.ModelService/DeleteModel",
    ],
)
def test_a_method_that_no_scope_names_is_denied(method: str) -> None:
    assert method_reason(policy(), caller(*DEFAULT_SCOPES), method) == "SCOPE_MISSING"


def test_without_scopes_only_public_keys_are_given() -> None:
    assert method_reason(policy(), caller(), GENERATE) == "SCOPE_MISSING"
    assert method_reason(policy(), caller(), "/meshgate.v1.KeyService/ListSealingKeys") is None


@pytest.mark.parametrize(
    ("scopes", "method", "told"),
    [
        (DEFAULT_SCOPES, GENERATE, "this method requires the scope generate"),
        (DEFAULT_SCOPES, EMBED, "this method requires the scope embed"),
        ({"b": (GENERATE,), "a": (GENERATE,)}, GENERATE, "this method requires one of the scopes a, b"),
        (
            {f"s{n:02}": (EMBED,) for n in range(99)},
            EMBED,
            "this method requires one of the scopes " + ", ".join(f"s{n:02}" for n in range(8)),
        ),
        ({}, GENERATE, "no scope allows this method here"),
    ],
)
def test_a_scope_that_is_missing_is_named(scopes: dict[str, tuple[str, ...]], method: str, told: str) -> None:
    with pytest.raises(PermissionDenied) as caught:
        Policy(PolicyConfig(scopes=scopes)).authorise_method(caller("other"), method)
    assert (caught.value.reason, caught.value.message) == ("SCOPE_MISSING", told)


def test_a_method_of_its_own_and_its_service_are_both_honoured() -> None:
    table = {"all": ("/p.S/*",), "one": ("/p.S/One",)}
    made = Policy(PolicyConfig(scopes=table))
    assert method_reason(made, caller("all"), "/p.S/One") is None
    assert method_reason(made, caller("one"), "/p.S/One") is None
    assert method_reason(made, caller("all"), "/p.S/Two") is None
    assert method_reason(made, caller("one"), "/p.S/Two") == "SCOPE_MISSING"


@pytest.mark.parametrize("pattern", ["*", "/*", "/p.S/O*", "p.S/One", "/p.S", "/p.S/One/Two", "/p.*/One", ""])
def test_a_pattern_that_is_no_method_stops_the_start(pattern: str) -> None:
    with pytest.raises(ValidationError):
        PolicyConfig(scopes={"x": (pattern,)})


def test_a_tenant_uses_its_models() -> None:
    made = policy(acme=TenantPolicy(models=("one", "two")))
    made.authorise_model(caller(), "one")
    assert made.visible(caller(), "two")
    assert not made.visible(caller(), "three")
    with pytest.raises(PermissionDenied) as caught:
        made.authorise_model(caller(), "three")
    assert caught.value.reason == "MODEL_NOT_ALLOWED"


def test_a_tenant_with_its_own_entry_has_that_alone() -> None:
    made = policy(everyone=TenantPolicy(models=("*",)), acme=TenantPolicy(models=("one",)))
    assert not made.visible(caller(), "two")
    assert made.visible(caller(tenant="globex"), "two")


def test_a_tenant_nobody_named_has_nothing() -> None:
    assert not policy(acme=TenantPolicy(models=("*",))).visible(caller(tenant="globex"), "one")
    assert not policy().visible(caller(), "")


def test_a_model_called_star_is_no_wildcard() -> None:
    assert not policy(acme=TenantPolicy(models=("one",))).visible(caller(), "*")


def test_a_tenant_can_be_held_to_sealed_calls() -> None:
    made = policy(everyone=TenantPolicy(models=("*",)), acme=TenantPolicy(models=("*",), sealed="required"))
    made.authorise_plain(caller(tenant="globex"))
    with pytest.raises(PermissionDenied) as caught:
        made.authorise_plain(caller())
    assert caught.value.reason == "SEALED_REQUIRED"


def test_a_tenant_has_defaults_of_its_own() -> None:
    made = policy(acme=TenantPolicy(models=("one",), defaults={"generation": "one"}))
    assert made.default_model(caller(), "generation") == "one"
    assert made.default_model(caller(), "embedding") == ""
    assert made.default_model(caller(tenant="other"), "generation") == ""


@pytest.mark.parametrize("defaults", [{"gateway": "one"}, {"generation": ""}, {"generation": "x" * 129}])
def test_a_default_that_can_be_none_stops_the_start(defaults: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TenantPolicy.model_validate({"models": ["*"], "defaults": defaults})
