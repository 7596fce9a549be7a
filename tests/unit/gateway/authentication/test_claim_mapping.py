"""Scopes and tenants where providers put them: in nested claims, under names with dots and slashes, as roles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.authentication import Authenticator, IssuerConfig, claim_path
from gateway.authorisation import explain
from gateway.authorisation.explain import Question
from gateway.authorisation.policy import Policy, PolicyConfig
from gateway.limits import LimitsConfig
from gateway.principal import Principal
from meshgate.errors import MeshError
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock

KEYCLOAK = {
    "realm_access": {"roles": ["mesh-user", "offline_access", "default-roles-mesh", "Mesh Admin"]},
    "resource_access": {"my.app/x": {"roles": ["embedder"]}},
    "scope": "openid email profile",
    "organization": {"id": "acme"},
}
AUTH0 = {"https://example.com/roles": ["generate", "models"], "https://example.com/tenant": "acme", "scope": "openid"}
KUBERNETES = {
    "sub": "system:serviceaccount:acme:app",
    "kubernetes.io": {"namespace": "acme", "serviceaccount": {"name": "app", "uid": "1"}},
}


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    return path


def principal(jwks: Path, claims: dict[str, Any], **config: Any) -> Principal:
    made = {**dict.fromkeys(("tenant", "scope")), **claims}
    return tokens.authenticator(jwks, Clock(), **config).authenticate(f"Bearer {tokens.token(**made)}")


def refused(jwks: Path, claims: dict[str, Any], **config: Any) -> str:
    with pytest.raises(MeshError) as caught:
        principal(jwks, claims, **config)
    assert caught.value.reason == "TOKEN_CLAIM"
    return caught.value.message


@pytest.mark.parametrize(
    ("claims", "config", "tenant", "scopes"),
    [
        (
            KEYCLOAK,
            {
                "scope_claim": "realm_access.roles",
                "tenant_claim": "organization.id",
                "scope_map": {"mesh-user": ["generate", "embed"], "Mesh Admin": ["models"], "nobody": ["classify"]},
            },
            "acme",
            {"generate", "embed", "models"},
        ),
        (
            KEYCLOAK,
            {
                "scope_claim": ["resource_access", "my.app/x", "roles"],
                "tenant_claim": ["organization", "id"],
                "scope_map": {"embedder": ["embed"]},
            },
            "acme",
            {"embed"},
        ),
        (
            AUTH0,
            {"scope_claim": "https://example.com/roles", "tenant_claim": "https://example.com/tenant"},
            "acme",
            {"generate", "models"},
        ),
        (
            KUBERNETES,
            {
                "tenant_claim": ["kubernetes.io", "namespace"],
                "scope_claim": ["kubernetes.io", "serviceaccount", "name"],
                "scope_map": {"app": ["generate"]},
            },
            "acme",
            {"generate"},
        ),
        (
            KUBERNETES,
            {"tenant": "cluster", "scope_claim": "sub", "scope_map": {KUBERNETES["sub"]: ["embed"]}},
            "cluster",
            {"embed"},
        ),
        (
            {"permissions": ["generate"], "tid": "acme"},
            {"scope_claim": "permissions", "tenant_claim": "tid"},
            "acme",
            {"generate"},
        ),
        (
            {"scp": "a b", "tid": "acme"},
            {"scope_map": {"a": ["generate"]}, "tenant_claim": "tid"},
            "acme",
            {"generate"},
        ),
        ({"tenant": "globex", "scope": "generate"}, {"tenant": "acme"}, "acme", {"generate"}),
        ({"tenant": 7, "scope": "generate"}, {"tenant": "acme"}, "acme", {"generate"}),
        ({"tenant": "acme"}, {"scope_claim": "realm_access.roles"}, "acme", set()),
        ({"tenant": "acme", "realm_access": {}}, {"scope_claim": "realm_access.roles"}, "acme", set()),
        ({"tenant": "acme", "scope": "generate"}, {"scope_claim": "roles"}, "acme", set()),
    ],
)
def test_claims_of_providers_become_tenants_and_scopes(
    jwks: Path, claims: dict[str, Any], config: dict[str, Any], tenant: str, scopes: set[str]
) -> None:
    made = principal(jwks, claims, **config)
    assert (made.tenant, set(made.scopes)) == (tenant, scopes)


WRONG: list[Any] = [7, True, None, {"generate": True}, [["generate"]], [7], ["generate", None], 1.5]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("mapped", [None, {"generate": ["generate"]}])
def test_what_grants_scopes_is_text_or_a_list_of_texts(jwks: Path, value: Any, mapped: Any) -> None:
    config = {"scope_claim": "realm_access.roles", "scope_map": mapped}
    told = refused(jwks, {"tenant": "acme", "realm_access": {"roles": value}}, **config)
    assert "realm_access.roles" in told


@pytest.mark.parametrize("value", ["", "a b", 7, None, [], ["acme"], {"id": "acme"}, "ac\u00a0me", " acme", True])
def test_a_tenant_is_text_wherever_it_is(jwks: Path, value: Any) -> None:
    told = refused(jwks, {"kubernetes.io": {"namespace": value}}, tenant_claim=["kubernetes.io", "namespace"])
    assert '["kubernetes.io", "namespace"]' in told


@pytest.mark.parametrize("value", ["x", 7, ["roles"], True])
@pytest.mark.parametrize("config", [{"scope_claim": "a.b.c", "tenant": "acme"}, {"tenant_claim": "a.b.c"}])
def test_what_a_path_leads_through_is_an_object(jwks: Path, value: Any, config: dict[str, Any]) -> None:
    assert "claim a must be an object" in refused(jwks, {"a": value}, **config)
    assert "claim a.b must be an object" in refused(jwks, {"a": {"b": value}}, **config)


def test_a_path_never_means_a_claim_that_has_its_dots(jwks: Path) -> None:
    """A token can't choose between the two ways to read it."""
    both = {"realm_access.roles": ["generate"], "realm_access": {"roles": ["embed"]}, "tenant": "acme"}
    assert principal(jwks, both, scope_claim="realm_access.roles").scopes == {"embed"}
    assert principal(jwks, both, scope_claim=["realm_access.roles"]).scopes == {"generate"}
    alone = {"realm_access.roles": ["generate"], "tenant": "acme"}
    assert principal(jwks, alone, scope_claim="realm_access.roles").scopes == set()


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\t", "\n"])
def test_a_mapped_value_is_parted_at_spaces_alone(jwks: Path, space: str) -> None:
    claims = {"tenant": "acme", "roles": f"x{space}user"}
    assert principal(jwks, claims, scope_claim="roles", scope_map={"user": ["generate"]}).scopes == set()
    assert refused(jwks, claims, scope_claim="roles")


NONSENSE: dict[str, list[Any]] = {
    "tenant_claim": ["", [], "a..b", ".a", "a.", ["a", ""], ["a"] * 9, "a.b.c.d.e.f.g.h.i", 7],
    "scope_claim": ["", [], [7], {"a": 1}, True, "a" * 257, ["a\u200b"]],
    "scope_map": [{}, {"a": ["b c"]}, {"a": ['"']}, {"a": "b"}, [], {"a": [""]}],
    "tenant": ["", "a b", "é", "x" * 129, 7],
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, values in NONSENSE.items() for value in values])
def test_what_can_be_no_path_or_map_stops_the_start(jwks: Path, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        IssuerConfig.model_validate({"issuer": "i", "audience": "a", "jwks": jwks, field: value})


@pytest.mark.parametrize("other", [{"tenant_claim": "org"}, {"tenants": ["acme"]}])
def test_a_fixed_tenant_is_the_only_one(jwks: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="tenant: "):
        IssuerConfig.model_validate({"issuer": "i", "audience": "a", "jwks": jwks, "tenant": "acme", **other})


@pytest.mark.parametrize(
    "path", [("tenant",), ("a", "b"), ("kubernetes.io", "namespace"), ("https://x/y",), ("https://x/y", "z"), ("a.b",)]
)
def test_a_path_is_shown_as_it_is_written(jwks: Path, path: tuple[str, ...]) -> None:
    shown = claim_path.shown(path)
    written = json.loads(shown) if shown.startswith("[") else shown
    fields = {"issuer": "i", "audience": "a", "jwks": jwks, "scope_claim": written}
    assert IssuerConfig.model_validate(fields).scope_claim == path


def test_explain_says_which_claim_gave_what(jwks: Path) -> None:
    config: dict[str, Any] = {
        "scope_claim": "realm_access.roles",
        "scope_map": {"user": ["generate"]},
        "tenant_claim": "org.id",
    }
    made: Authenticator = tokens.authenticator(jwks, Clock(), **config)
    token = tokens.token(realm_access={"roles": ["user", "other"]}, org={"id": "acme"})
    policy = Policy(PolicyConfig.model_validate({"tenants": {"acme": {"models": ["*"]}}}))
    question = Question("/meshgate.v1.GenerationService/Generate")
    told = explain.explain(question, made.examine(f"Bearer {token}"), policy, LimitsConfig())
    steps = {step.name: step.detail for step in told.steps}
    assert steps["claims"] == "subject bob, scopes generate (realm_access.roles: user, other)"
    assert steps["tenant"] == "acme (org.id)"
