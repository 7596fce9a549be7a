"""Names in the configuration that refer to something elsewhere: methods of the contract, scopes, tenants, models.

Names that the contract and the file itself define are checked when the file is read. A name that refers to nothing
stops the start: it would never apply, and a limit that never applies admits everything. Only the services know which
models there are, and that changes. So model names are compared with the services' lists, whenever those change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from gateway.authentication import IssuerConfig
from gateway.authentication.names import EVERYONE
from gateway.authorisation.policy import PolicyConfig
from gateway.limits import LimitsConfig
from gateway.routes import PUBLIC_ROUTES, SEALED_ROUTES
from meshgate.runtime.config.problems import meant
from meshgate.v1 import models_pb2

KINDS: Final = ("absent", "alias", "shadowed", "denied")
"""The possible faults of a model name: see `Unmatched.kind`."""

_METHODS: Final = frozenset(PUBLIC_ROUTES) - frozenset(SEALED_ROUTES)
_PATTERNS: Final = _METHODS | {f"{path.rpartition('/')[0]}/*" for path in _METHODS}

ListedModels = Iterable[tuple[str, models_pb2.Model]]
"""Models with the backend of each."""


def check_methods(policy: PolicyConfig) -> None:
    """Raises ValueError for a scope of a method that no caller can call."""
    for scope, patterns in policy.scopes.items():
        for pattern in patterns:
            if pattern not in _PATTERNS:
                raise ValueError(f"policy.scopes: {scope!r} is for {pattern!r}, {_no_method(pattern)}")


def _no_method(pattern: str) -> str:
    if pattern in SEALED_ROUTES or pattern.removesuffix("/*") in {each.rpartition("/")[0] for each in SEALED_ROUTES}:
        return "which never applies: a sealed call needs the scope of the method inside"
    return f"which is not a method of the contract{meant(pattern, _PATTERNS)}"


def check_scopes(issuers: Iterable[IssuerConfig], policy: PolicyConfig) -> None:
    """Raises ValueError for a scope that an issuer's map grants and that allows nothing."""
    for number, issuer in enumerate(issuers):
        for value, scopes in (issuer.scope_map or {}).items():
            for scope in scopes:
                if scope not in policy.scopes:
                    known = f"policy.scopes has no {scope!r}{meant(scope, policy.scopes)}"
                    raise ValueError(
                        f"issuers: scope_map of issuer {number} grants {scope!r} for {value!r}, but {known}"
                    )


def check_tenants(issuers: Iterable[IssuerConfig], tables: Mapping[str, Iterable[str]]) -> None:
    """Raises ValueError for a tenant in one of `tables` that no issuer may name. Nothing is raised where an issuer may
    name any.
    """
    known: set[str] = set()
    for issuer in issuers:
        named = {issuer.tenant} if issuer.tenant is not None else issuer.tenants
        if named is None:
            return
        known |= named
    for key, tenants in tables.items():
        for tenant in tenants:
            if tenant not in known and tenant != EVERYONE:
                raise ValueError(f"{key}: no issuer may name the tenant {tenant!r}{meant(tenant, known)}")


def check_defaults(policy: PolicyConfig) -> Iterator[str]:
    """The faults that keep a gateway from starting: a default model that its tenant may not use. One line for each."""
    for tenant, own in policy.tenants.items():
        for backend, model in own.defaults.items():
            if EVERYONE not in own.models and model not in own.models:
                may = f"may use {', '.join(map(repr, own.models))} only" if own.models else "may use no model"
                yield (
                    f"policy.tenants.{tenant}.defaults.{backend}: this tenant {may}, and not {model!r}: "
                    f"make its default one of these, by its own name, or list {model!r} in models"
                )


class Reference(NamedTuple):
    """A model name in the configuration."""

    key: str
    name: str
    backend: str | None
    """The service that must have the model; None for any."""
    aliases: bool
    """Whether an alias is enough."""


class Unmatched(NamedTuple):
    """A model name that does not apply as it is written."""

    key: str
    name: str
    kind: str
    """`absent`: no service lists it; `alias`: only own names count there; `shadowed`: another name of the same model
    has what counts; `denied`: a default that its tenant may not use."""
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {self.name!r} {self.why}"


def of_models(policy: PolicyConfig, limits: LimitsConfig) -> Iterator[Reference]:
    """Every model name in the configuration."""
    for tenant, own in policy.tenants.items():
        for model in own.models:
            if model != EVERYONE:
                yield Reference(f"policy.tenants.{tenant}.models", model, None, aliases=False)
        for backend, model in own.defaults.items():
            yield Reference(f"policy.tenants.{tenant}.defaults.{backend}", model, str(backend), aliases=True)
    for model in limits.models:
        yield Reference("limits.models", model, None, aliases=True)
    for tenant, theirs in limits.tenants.items():
        for model in theirs.models:
            yield Reference(f"limits.tenants.{tenant}.models", model, None, aliases=True)


def unmatched(policy: PolicyConfig, limits: LimitsConfig, listed: ListedModels) -> tuple[Unmatched, ...]:
    """The names that do not apply as they are written, with the present lists of the services."""
    models = tuple(listed)
    found = [_judged(reference, models) for reference in of_models(policy, limits)]
    return (*(each for each in found if each is not None), *_shadowed(limits, models), *_denied(policy, models))


def _judged(reference: Reference, models: Iterable[tuple[str, models_pb2.Model]]) -> Unmatched | None:
    there = [model for backend, model in models if reference.backend in (None, backend)]
    if any(model.name == reference.name for model in there):
        return None
    owner = next((model.name for model in there if reference.name in model.aliases), None)
    if owner is None:
        names = [name for model in there for name in (model.name, *model.aliases)]
        why = f"is not a model that a service lists now{meant(reference.name, names)}"
        return Unmatched(reference.key, reference.name, "absent", why)
    if reference.aliases:
        return None
    return Unmatched(reference.key, reference.name, "alias", f"is an alias of {owner!r}: write that name here")


def _shadowed(limits: LimitsConfig, models: Iterable[tuple[str, models_pb2.Model]]) -> Iterator[Unmatched]:
    """Names of one model that have limits side by side: the first of a model's names counts."""
    tables = {f"limits.tenants.{name}.models": own.models for name, own in limits.tenants.items()}
    for key, table in {"limits.models": limits.models, **tables}.items():
        for _, model in models:
            first, *others = [name for name in (model.name, *model.aliases) if name in table] or [""]
            for other in others:
                yield Unmatched(
                    key, other, "shadowed", f"is {model.name!r} too, for which the limits of {first!r} count"
                )


def _denied(policy: PolicyConfig, models: Iterable[tuple[str, models_pb2.Model]]) -> Iterator[Unmatched]:
    """Defaults that turn out to be models that their tenants may not use."""
    owners = {(backend, name): each.name for backend, each in models for name in (*each.aliases, each.name)}
    for tenant, own in policy.tenants.items():
        for backend, default in own.defaults.items():
            owner = owners.get((str(backend), default), default)
            if EVERYONE not in own.models and owner not in own.models and owner != default:
                key = f"policy.tenants.{tenant}.defaults.{backend}"
                yield Unmatched(key, default, "denied", f"is {owner!r}, which this tenant may not use")


def aliases(listed: ListedModels) -> dict[str, tuple[str, ...]]:
    """Each model's aliases, by its own name."""
    found: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for _, model in listed:
        found[model.name] = (*found[model.name], *model.aliases)
    return dict(found)
