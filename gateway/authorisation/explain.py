"""The explanation of a decision: the gateway's own stages, asked one by one without a call.

The same code decides here and in the gateway: `Authenticator.examine`, `Policy`, the services' own lists of models and
the limits' plan. Only the state of a running gateway is left out: how full the buckets are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from gateway.authentication import STEPS, TokenReport
from gateway.authorisation import references
from gateway.authorisation.policy import Policy
from gateway.limits import LimitsConfig, gcra
from gateway.limits.plan import Plans
from gateway.principal import Principal
from gateway.routes import LOCAL_ROUTES, MODEL_ROUTES, PUBLIC_ROUTES, SEALED_ROUTES
from gateway.stages import EXPLAINED
from meshgate import errors
from meshgate.runtime.config.problems import meant
from meshgate.v1 import models_pb2

_SECONDS: Final = {"requests_per_second": 1, "tokens_per_minute": 60}


@dataclass(frozen=True, slots=True)
class Question:
    """A possible call."""

    method: str
    """`/package.Service/Method`; for a sealed call the method inside."""
    model: str = ""
    """The model's own name or an alias; "" for a call that names none."""
    sealed: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step that a call must pass."""

    name: str
    passed: bool | None
    """None: an earlier step failed, the step does not apply, or only a running gateway can decide."""
    reason: str = ""
    """The stable reason in the error of a caller that fails here."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AppliedLimit:
    """A limit to which such calls are charged."""

    subject: str
    limit: str
    value: float
    burst: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All steps, in order, and their result."""

    steps: list[Step] = field(default_factory=list)
    principal: Principal | None = None
    limits: list[AppliedLimit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Further notes: names in the configuration that apply to nothing, services that were not reached."""
    configuration: str = ""
    """The configuration file."""

    @property
    def allowed(self) -> bool:
        """Whether no step failed."""
        return all(step.passed is not False for step in self.steps)

    @property
    def reason(self) -> str | None:
        """The reason of the first step that failed."""
        return next((step.reason for step in self.steps if step.passed is False), None)


class ListedModels(Protocol):
    """The models that services list: gateway.forwarding.model_catalogue.ModelCatalogue, or NO_SERVICES."""

    def reached(self, backend: str) -> bool:
        """Whether the service has listed its models."""

    def resolve(self, backend: str, name: str) -> str:
        """The model's own name for a name, an alias, or ""; an unknown name stays as it is."""

    def listed(self) -> list[tuple[str, models_pb2.Model]]:
        """All models with the backend of each."""


class _NoServices:
    def reached(self, backend: str) -> bool:
        return False

    def resolve(self, backend: str, name: str) -> str:
        return name

    def listed(self) -> list[tuple[str, models_pb2.Model]]:
        return []


NO_SERVICES: Final[ListedModels] = _NoServices()
"""Stands for the lists where no service was reached."""


def explain(
    question: Question, report: TokenReport, policy: Policy, limits: LimitsConfig, models: ListedModels = NO_SERVICES
) -> Explanation:
    """The decision on a call by the caller of `report`, with the present lists of the services."""
    made = Explanation(_of_token(report), report.principal)
    checks = _checks(question, policy, models)
    for name in EXPLAINED[len(STEPS) :]:  # the token's own steps come first
        made.steps.append(_asked(name, checks[name], made))
    if made.allowed and made.principal is not None:
        made.limits.extend(_limits(question, made.principal, policy, limits, models))
    return made


def _of_token(report: TokenReport) -> list[Step]:
    refusal, passed = report.refusal, report.passed
    steps = [Step(name, True, detail=_proven(name, report)) for name in passed]
    if refusal is not None:
        steps.append(Step(STEPS[len(passed)], False, refusal.reason, refusal.message))
    return steps + [Step(name, None) for name in STEPS[len(steps) :]]


def _proven(name: str, report: TokenReport) -> str:
    """The detail of a passed step; empty where the token as a whole proves no principal."""
    principal = report.principal
    if principal is None:
        return ""
    match name:
        case "issuer":
            return principal.issuer
        case "time":
            return f"until {datetime.fromtimestamp(principal.expires_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        case "claims":
            scopes = " ".join(sorted(principal.scopes)) or "none"
            return _from(f"subject {principal.subject}, scopes {scopes}", report.origin.get("scopes"))
        case "tenant":
            return _from(principal.tenant, report.origin.get("tenant"))
        case "certificate":
            return "bound to one" if principal.confirmation else "not bound to one"
    return ""


def _from(what: str, claim: str | None) -> str:
    return f"{what} ({claim})" if claim else what


StepResult = tuple[bool | None, str]
"""Whether a step passed, None where that can't be decided here, and the detail."""
Check = Callable[[Principal], StepResult]
"""Raises MeshError where a call would fail."""

_NOT_ASKED: Final[StepResult] = (None, "not asked")


def _checks(question: Question, policy: Policy, models: ListedModels) -> dict[str, Check]:
    """The check of each step after the token's, by the step's name in gateway.stages."""

    def method(_: Principal) -> StepResult:
        if question.method not in PUBLIC_ROUTES:
            like = meant(question.method, PUBLIC_ROUTES)
            raise errors.Unimplemented(f"no such method{like}", reason="METHOD_UNKNOWN")
        return True, question.method

    def scope(principal: Principal) -> StepResult:
        policy.authorise_method(principal, question.method)
        return True, ""

    def sealed(principal: Principal) -> StepResult:
        if question.sealed or question.method in LOCAL_ROUTES:
            return _NOT_ASKED
        policy.authorise_plain(principal)
        return True, "may be in the clear"

    def model(principal: Principal) -> StepResult:
        route = MODEL_ROUTES.get(question.method)
        if route is None:
            return _NOT_ASKED
        if question.model:
            return _named_model(policy, principal, models, route.backend, question.model)
        return _unnamed(policy, principal, models, route.backend)

    return {"method": method, "scope": scope, "sealed": sealed, "model": model}


def _named_model(policy: Policy, principal: Principal, models: ListedModels, backend: str, name: str) -> StepResult:
    """The step for a call that names a model, or an alias. Raises PermissionDenied where the tenant may not use it."""
    if not models.reached(backend):
        if policy.visible(principal, name):
            return True, name
        unless = f"unless {name!r} is an alias: the {backend} service was not reached"
        raise errors.PermissionDenied(f"this tenant may not use this model, {unless}", reason="MODEL_NOT_ALLOWED")
    own, listed = models.resolve(backend, name), _names(models, backend)
    policy.authorise_model(principal, own)
    if own not in listed:
        return None, f"the {backend} service lists no model {name!r} now{meant(name, listed)}"
    return True, own if own == name else f"{own} ({name} is an alias)"


def _names(models: ListedModels, backend: str) -> set[str]:
    return {model.name for each, model in models.listed() if each == backend}


def _unnamed(policy: Policy, principal: Principal, models: ListedModels, backend: str) -> StepResult:
    """The step for a call that names no model. Raises PermissionDenied where the tenant may not use the default."""
    default = policy.default_model(principal, backend)
    if models.reached(backend):
        own = models.resolve(backend, default)
        policy.authorise_model(principal, own)
        whose = "the tenant's" if default else "the service's"
        return True, f"{own} ({whose} default)"
    if policy.visible(principal, default):  # the tenant may use all models, or this one by its own name
        return True, default or "any"
    policy.authorise_any_model(principal)
    return None, f"depends on what model {default} is" if default else "depends on the service's default: name a model"


def _asked(name: str, check: Check, made: Explanation) -> Step:
    if made.principal is None or not made.allowed:
        return Step(name, None)
    try:
        passed, said = check(made.principal)
    except errors.MeshError as error:
        return Step(name, False, error.reason, error.message)
    return Step(name, passed, detail=said)


def _limits(
    question: Question, principal: Principal, policy: Policy, config: LimitsConfig, models: ListedModels
) -> list[AppliedLimit]:
    """The limits to which the running gateway charges such a call."""
    route = PUBLIC_ROUTES[question.method]
    streams = route.client_streams or route.server_streams
    named = question.model or policy.default_model(principal, route.backend)
    own = models.resolve(route.backend, named) if models.reached(route.backend) else named
    plans = Plans(config)
    plans.set_aliases(references.aliases(models.listed()))
    plan = plans.of(principal.tenant, principal.subject, own, streams=streams)
    rates = [_rate(each.subject, each.name, each.limit) for each in (*plan.requests, *plan.tokens)]
    places = [AppliedLimit(each.subject, each.name, each.maximum, None) for each in plan.concurrency]
    return rates + places


def _rate(subject: str, name: str, limit: gcra.Limit) -> AppliedLimit:
    per = next((seconds for unit, seconds in _SECONDS.items() if name.startswith(unit)), 1)
    return AppliedLimit(subject, name, round(per * gcra.SECOND / limit.interval, 3), limit.burst)


def named(method: str) -> str:
    """The full name of `method`; for Meshgate's own services the last two words are enough. Raises ValueError for a
    method of the SealedService.
    """
    path = method if method.startswith("/") else f"/{method}"
    full = next((route for route in PUBLIC_ROUTES if route in (path, f"/meshgate.v1.{path[1:]}")), path)
    if full in SEALED_ROUTES:
        raise ValueError("name the method inside the envelope, and say --sealed")
    return full


def as_json(made: Explanation) -> dict[str, Any]:
    """The same for programs."""
    principal = made.principal
    return {
        "allowed": made.allowed,
        "reason": made.reason,
        "tenant": principal and principal.tenant,
        "subject": principal and principal.subject,
        "scopes": principal and sorted(principal.scopes),
        "expires_at": principal and principal.expires_at,
        "steps": [
            {"step": step.name, "passed": step.passed, "reason": step.reason or None, "detail": step.detail}
            for step in made.steps
        ],
        "limits": [
            {"subject": each.subject, "limit": each.limit, "value": each.value, "burst": each.burst}
            for each in made.limits
        ],
        "notes": made.notes,
        "configuration": made.configuration or None,
    }
