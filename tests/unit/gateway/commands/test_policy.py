"""`meshgate policy explain`: every step and reason that a caller would meet, and never the token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import certs
from gateway.authentication import STEPS, Authenticator, thumbprint
from gateway.commands import dev_issuer
from gateway.commands.policy import policy
from meshgate.errors import MeshError
from meshgate.state import default_configs
from tests.support.fixtures import tokens
from tests.unit.gateway.authentication.test_authenticator import _JSON, _SHARED, bearer

app = typer.Typer()
app.add_typer(policy, name="policy")
runner = CliRunner()

GENERATE = "GenerationService/Generate"
MIN_SECRET = 100
"""The length from which a token is one, and must not be shown."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    dev_issuer.ensure_key(tmp_path)
    return tmp_path


def mint(home: Path, scopes: tuple[str, ...] = dev_issuer.SCOPES, **changes: Any) -> str:
    return dev_issuer.mint(home, **{"tenant": "acme", "subject": "bob", "scopes": scopes, "ttl": 600, **changes})


def config(home: Path, *changes: tuple[str, str], more: str = "") -> Path:
    """The shipped configuration, changed."""
    text = (default_configs() / "gateway.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = home / "gateway.toml"
    path.write_text(f"{text}\n{more}")
    return path


def explained(token: str, *arguments: str, method: str = GENERATE) -> tuple[int, dict[str, Any]]:
    result = runner.invoke(
        app, ["policy", "explain", "--token", "-", "--method", method, "--json", *arguments], input=token
    )
    assert len(token) < MIN_SECRET or token not in result.output
    return result.exit_code, json.loads(result.stdout)


def step(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in told["steps"] if each["step"] == name)
    return found


def test_an_allowed_call_passes_every_step(home: Path) -> None:
    code, told = explained(mint(home), "--model", "any")
    assert (code, told["allowed"], told["reason"]) == (0, True, None)
    assert [each["step"] for each in told["steps"]] == [*STEPS, "method", "scope", "sealed", "model"]
    assert all(each["passed"] for each in told["steps"])
    assert (told["tenant"], told["subject"]) == ("acme", "bob")


def test_it_tells_the_limits_as_numbers(home: Path) -> None:
    _, told = explained(mint(home))
    assert {"subject": "tenant:acme", "limit": "requests_per_second", "value": 200.0, "burst": 400} in told["limits"]
    assert {"subject": "principal:acme bob", "limit": "requests_per_second", "value": 100.0, "burst": 200} in told[
        "limits"
    ]
    more = "[limits.tenants.acme.tenant]\ntokens_per_minute = 6000\nconcurrent_calls = 3"
    _, told = explained(mint(home), "--config", str(config(home, more=more)))
    assert {"subject": "tenant:acme", "limit": "tokens_per_minute", "value": 6000.0, "burst": 6000} in told["limits"]
    assert {"subject": "tenant:acme", "limit": "concurrent_calls", "value": 3, "burst": None} in told["limits"]


def test_the_first_step_that_fails_is_the_reason_and_later_ones_are_not_made(home: Path) -> None:
    code, told = explained(mint(home, audience="other"))
    assert (code, told["allowed"], told["reason"]) == (1, False, "TOKEN_AUDIENCE")
    assert [each["passed"] for each in told["steps"]] == [True, True, True, False] + [None] * 12
    assert told["tenant"] is None
    assert told["limits"] == []


@pytest.mark.parametrize(
    ("changes", "failed", "reason"),
    [
        ({"issuer": "https://else.test"}, "issuer", "TOKEN_ISSUER"),
        ({"audience": "other"}, "audience", "TOKEN_AUDIENCE"),
        ({"ttl": -3600}, "time", "TOKEN_EXPIRED"),
        ({"subject": ""}, "claims", "TOKEN_CLAIM"),
    ],
)
def test_a_token_fails_where_it_should(home: Path, changes: dict[str, Any], failed: str, reason: str) -> None:
    code, told = explained(mint(home, **changes))
    assert (code, step(told, failed)["passed"], step(told, failed)["reason"]) == (1, False, reason)


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "Bearer "])
def test_what_is_no_token_fails_at_once(token: str) -> None:
    code, told = explained(f"{token}\n")
    assert (code, step(told, "token")["passed"]) == (1, False)


def test_a_stranger_fails_at_the_signature(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kid = json.loads((home / "keys" / "jwks.json").read_text())["keys"][0]["kid"]
    token = tokens.token(
        header={"kid": kid}, iss=dev_issuer.ISSUER, aud=dev_issuer.AUDIENCE, exp=tokens.NOW + 10**9, iat=None
    )
    assert explained(token)[1]["reason"] == "TOKEN_SIGNATURE"
    other = tmp_path_factory.mktemp("other")
    dev_issuer.ensure_key(other)
    assert explained(mint(other))[1]["reason"] == "TOKEN_KEY_UNKNOWN"


def test_a_revoked_token(home: Path) -> None:
    (home / "revoked.json").write_text(json.dumps({"revoked": [{"issuer": dev_issuer.ISSUER, "subject": "bob"}]}))
    path = config(home, more=f'[revocation]\nfile = "{home}/revoked.json"')
    code, told = explained(mint(home), "--config", str(path))
    assert (code, step(told, "revoked")["reason"]) == (1, "TOKEN_REVOKED")
    assert explained(mint(home, subject="alice"), "--config", str(path))[0] == 0


def test_a_store_that_is_down_lets_nobody_in(home: Path) -> None:
    more = f'[store]\nurl = "unix://{home}/nothing.sock"\n[revocation]\nstore = true'
    code, told = explained(mint(home), "--config", str(config(home, more=more)))
    assert (code, step(told, "revocations")["reason"]) == (1, "REVOCATIONS_UNAVAILABLE")


def test_a_tenant_that_the_issuer_may_not_name(home: Path) -> None:
    path = config(home, ('# tenants = ["acme"]', 'tenants = ["globex"]'))
    assert step(explained(mint(home), "--config", str(path))[1], "tenant")["reason"] == "TOKEN_TENANT"


@pytest.mark.parametrize(
    ("method", "failed", "reason"),
    [
        ("EmbeddingService/Embed", "scope", "SCOPE_MISSING"),
        ("GenerationService/Nothing", "method", "METHOD_UNKNOWN"),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "method", "METHOD_UNKNOWN"),
    ],
)
def test_a_method_that_the_token_does_not_cover(home: Path, method: str, failed: str, reason: str) -> None:
    code, told = explained(mint(home, scopes=("generate",)), method=method)
    assert (code, step(told, failed)["reason"]) == (1, reason)


def test_a_model_and_a_seal_that_the_tenant_needs(home: Path) -> None:
    more = '[policy.tenants.acme]\nmodels = ["one"]\nsealed = "required"'
    path = str(config(home, more=more))
    assert explained(mint(home), "--config", path)[1]["reason"] == "SEALED_REQUIRED"
    assert explained(mint(home), "--config", path, "--sealed", "--model", "one")[0] == 0
    assert explained(mint(home), "--config", path, "--sealed", "--model", "two")[1]["reason"] == "MODEL_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("tenant", "code", "passed", "detail"),
    [
        ("models = []", 1, False, "this tenant may use no model"),
        ('models = []\ndefaults = {generation = "one"}', 1, False, "this tenant may use no model"),
        ('models = ["one"]', 0, None, "depends on the service's default: name a model"),
        ('models = ["one"]\ndefaults = {generation = "one"}', 0, True, "one"),
        ('models = ["one"]\ndefaults = {generation = "alias"}', 0, None, "depends on what model alias is"),
        ('models = ["one"]\ndefaults = {embedding = "one"}', 0, None, "depends on the service's default: name a model"),
        ('models = ["*"]', 0, True, "any"),
    ],
)
def test_a_call_that_names_no_model(home: Path, tenant: str, code: int, passed: bool | None, detail: str) -> None:
    path = str(config(home, more=f"[policy.tenants.acme]\n{tenant}"))
    exit_code, told = explained(mint(home), "--config", path)
    model = step(told, "model")
    assert (exit_code, model["passed"], model["detail"]) == (code, passed, detail)
    assert told["reason"] == ("MODEL_NOT_ALLOWED" if code else None)


def test_a_bound_token_needs_its_certificate(home: Path) -> None:
    certs.ensure(home, ["gateway"])
    pem = home / "certs" / "gateway.pem"
    tokens.publish(home / "keys" / "jwks.json", [tokens.jwk(tokens.EC_KEY, kid="ec")])
    bond = {"x5t#S256": thumbprint(pem.read_bytes())}
    token = tokens.token(iss=dev_issuer.ISSUER, exp=tokens.NOW + 10**9, iat=None, cnf=bond)
    assert explained(token)[1]["reason"] == "TOKEN_BINDING"
    assert explained(token, "--certificate", str(pem))[0] == 0


def test_a_person_gets_a_table_and_nothing_that_a_terminal_obeys(home: Path) -> None:
    token = mint(home, subject="[red]bob", scopes=("embed",))
    result = runner.invoke(app, ["policy", "explain", "--token", token, "--method", GENERATE])
    assert result.exit_code == 1
    assert "SCOPE_MISSING" in result.output
    assert "[red]bob" in result.output
    assert token not in result.output
    assert "denied" in result.output
    allowed = runner.invoke(app, ["policy", "explain", "--token", mint(home), "--method", GENERATE])
    assert allowed.exit_code == 0
    assert "requests_per_second" in allowed.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "missing.toml"],
        ["--certificate", "missing.pem"],
        ["--certificate", __file__],
        ["--method", "SealedService/Call"],
    ],
)
def test_a_question_that_makes_no_sense(home: Path, arguments: list[str]) -> None:
    token = mint(home)
    result = runner.invoke(app, ["policy", "explain", "--token", token, "--method", GENERATE, *arguments])
    assert result.exit_code == 2
    assert result.output.startswith("not explained: ")
    assert token not in result.output


@given(
    claim=st.sampled_from(["iss", "aud", "sub", "tenant", "scope", "exp", "nbf", "jti", "cnf"]),
    value=_JSON | st.integers(tokens.NOW - 100, tokens.NOW + 100),
)
def test_what_is_explained_is_what_happens(claim: str, value: Any) -> None:
    """For any claim the steps end where the call would, and with the same word."""
    token = bearer(tokens.token(**{claim: value}))
    found = _SHARED.examine(token)
    assert (found.refusal and found.refusal.reason) == _reason(_SHARED, token)
    assert (found.principal is None) == (len(found.passed) < len(STEPS))


def _reason(authenticator: Authenticator, token: str) -> str | None:
    try:
        authenticator.authenticate(token)
    except MeshError as error:
        return error.reason
    return None
