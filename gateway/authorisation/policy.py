"""The policy: one table, scopes to methods and tenants to models. Anything else is denied.

It is compiled once to sets, so that a check is a lookup or two. A sealed call is checked by the method inside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, Field

from gateway.authentication.names import EVERYONE, ModelName, ScopeName, TenantOrEveryone
from gateway.principal import Principal
from meshgate import errors
from meshgate.runtime.config import Strict
from meshgate.services import SERVICES

_NAMED_SCOPES: Final = 8
"""Scopes that a refusal names."""
_PATTERN: Final = re.compile(r"/[A-Za-z0-9_.]+/(\*|[A-Za-z0-9_]+)", re.ASCII)

if TYPE_CHECKING:
    ServiceName = str
else:
    ServiceName = Literal[tuple(SERVICES)]  # the names of the table, which a type checker can't read

DEFAULT_SCOPES: Final[Mapping[str, tuple[str, ...]]] = {
    **{service.scope: (f"/{service.full_name}/*",) for service in SERVICES.values()},
    "models": ("/meshgate.v1.ModelService/ListModels",),
}

OPEN_METHODS: Final = frozenset({"/meshgate.v1.KeyService/ListSealingKeys"})
"""The methods for every authenticated caller: public keys, which sealing requires before anything else."""


def _pattern(value: str) -> str:
    if _PATTERN.fullmatch(value) is None:
        raise ValueError(f"{value!r} is neither /package.Service/Method nor /package.Service/*")
    return value


class TenantPolicy(Strict):
    """The models of a tenant, and whether its calls must be sealed."""

    models: tuple[ModelName, ...] = ()
    """Names as ListModels gives them, or "*"."""
    defaults: Mapping[ServiceName, ModelName] = Field(default_factory=dict)
    """Service to the model, or an alias, of a call that names none. Default: the service's own default."""
    sealed: Literal["optional", "required"] = "optional"
    """Whether calls in the clear are refused."""


class PolicyConfig(Strict):
    """The [policy] section."""

    scopes: Mapping[ScopeName, tuple[Annotated[str, AfterValidator(_pattern)], ...]] = Field(default=DEFAULT_SCOPES)
    """Scope to methods, each `/package.Service/Method` or `/package.Service/*`."""
    tenants: Mapping[TenantOrEveryone, TenantPolicy] = Field(default_factory=dict)
    """Tenant to its policy; "*" is every tenant without an entry of its own."""


@dataclass(frozen=True, slots=True)
class _Grant:
    models: frozenset[str]
    every_model: bool
    sealed_only: bool
    defaults: Mapping[str, str]


_NOTHING: Final = _Grant(frozenset(), every_model=False, sealed_only=False, defaults={})


class Policy:
    """The compiled table."""

    def __init__(self, config: PolicyConfig) -> None:
        self._by_service, self._by_method = _compile(config.scopes)
        self._tenants = {name: _grant(tenant) for name, tenant in config.tenants.items()}
        self._otherwise = self._tenants.get(EVERYONE, _NOTHING)

    def authorise_method(self, principal: Principal, method: str) -> None:
        """Raises PermissionDenied (SCOPE_MISSING) unless a scope of the principal covers `/package.Service/Method`."""
        allowing = self._by_method.get(method)
        if allowing is None:
            allowing = self._by_service.get(method.rpartition("/")[0], frozenset())
        if allowing.isdisjoint(principal.scopes) and method not in OPEN_METHODS:
            raise errors.PermissionDenied(_missing_scope(allowing), reason="SCOPE_MISSING")

    def authorise_model(self, principal: Principal, model: str) -> None:
        """Raises PermissionDenied (MODEL_NOT_ALLOWED) unless the tenant may use `model`, a resolved name."""
        if not self.visible(principal, model):
            raise errors.PermissionDenied("this tenant may not use this model", reason="MODEL_NOT_ALLOWED")

    def authorise_any_model(self, principal: Principal) -> None:
        """Raises PermissionDenied (MODEL_NOT_ALLOWED) where the tenant may use no model at all."""
        grant = self._tenants.get(principal.tenant, self._otherwise)
        if not grant.every_model and not grant.models:
            raise errors.PermissionDenied("this tenant may use no model", reason="MODEL_NOT_ALLOWED")

    def authorise_plain(self, principal: Principal) -> None:
        """Raises PermissionDenied (SEALED_REQUIRED) where the tenant's calls must be sealed."""
        if self._tenants.get(principal.tenant, self._otherwise).sealed_only:
            raise errors.PermissionDenied("this tenant's calls must be sealed", reason="SEALED_REQUIRED")

    def default_model(self, principal: Principal, backend: str) -> str:
        """The model of the tenant's calls of a service that name none; "" for the service's own default."""
        return self._tenants.get(principal.tenant, self._otherwise).defaults.get(backend, "")

    def visible(self, principal: Principal, model: str) -> bool:
        """Whether the tenant may use, and so may see, `model`."""
        grant = self._tenants.get(principal.tenant, self._otherwise)
        return grant.every_model or model in grant.models


def _missing_scope(allowing: frozenset[str]) -> str:
    """The message for a missing scope. Scopes are no secret: a caller has to name them when it asks for a token."""
    if not allowing:
        return "no scope allows this method here"
    named = ", ".join(sorted(allowing)[:_NAMED_SCOPES])
    return f"this method requires {'the scope' if len(allowing) == 1 else 'one of the scopes'} {named}"


def _compile(
    scopes: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """The scopes that cover each whole service, and each single method together with those of its service."""
    services: dict[str, set[str]] = {}
    methods: dict[str, set[str]] = {}
    for scope, patterns in scopes.items():
        for pattern in patterns:
            service, _, method = pattern.rpartition("/")
            if method == "*":
                services.setdefault(service, set()).add(scope)
            else:
                methods.setdefault(pattern, set()).add(scope)
    for pattern, names in methods.items():
        names |= services.get(pattern.rpartition("/")[0], set())
    return _frozen(services), _frozen(methods)


def _frozen(table: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {key: frozenset(names) for key, names in table.items()}


def _grant(tenant: TenantPolicy) -> _Grant:
    return _Grant(
        frozenset(tenant.models),
        EVERYONE in tenant.models,
        tenant.sealed == "required",
        {str(backend): model for backend, model in tenant.defaults.items()},
    )
