"""`meshgate policy` beside a mesh that runs: it reads what that was started with and knows its services' models."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from typer.testing import CliRunner

from gateway.authorisation import explain
from gateway.authorisation.explain import Question
from gateway.commands import active_config
from gateway.commands import policy as policy_commands
from gateway.commands.policy import policy
from meshgate import errors, state
from meshgate.rpc import status
from meshgate.state import default_configs
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

LIMITS = {
    "models": {"first": {"principal": {"requests_per_second": 0.001, "burst": 1}}, "alhpa": {}},
    "tenants": {"acme": {"models": {"beta": {"tenant": {"concurrent_calls": 3}}}}},
}
POLICY: dict[str, Any] = {
    "tenants": {
        "acme": {"models": ["alpha"]},
        "odd": {"models": ["first"]},
        "rich": {"models": ["*"], "defaults": {"generation": "first"}},
        "none": {"models": ["beta"]},
    }
}
METHOD = "GenerationService/Generate"
app = typer.Typer()
app.add_typer(policy, name="policy")


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """One whose gateway has the configuration that lies in `elsewhere`, as `up --config-dir` would start it."""
    services = {"generation": ScriptedApplication(), "embedding": ScriptedApplication()}
    metrics = {"listen": "127.0.0.1:0"}
    async with meshes.mesh(tmp_path, services, policy=POLICY, limits=LIMITS, metrics=metrics) as made:
        yield made


def elsewhere(mesh: Mesh) -> Path:
    """The configuration of `mesh` as a file, and word of it in the state directory."""
    folder = mesh.home / "elsewhere"
    folder.mkdir()
    shipped = (default_configs() / "gateway.toml").read_text()
    head = shipped[: shipped.index("# What a scope lets a caller do.")]
    cut = head.index("[backends.classification]"), head.index("[[issuers]]")
    text = head[: cut[0]] + head[cut[1] :]
    rest = 'tenants.acme.models = ["alpha"]\ntenants.odd.models = ["first"]\ntenants.none.models = ["beta"]\n'
    rich = 'tenants.rich = { models = ["*"], defaults = { generation = "first" } }\n'
    limits = "[limits.models.first.principal]\nrequests_per_second = 0.001\nburst = 1\n[limits.models.alhpa]\n"
    tail = '[audit]\ndirectory = "a"\nkeys = "k"\n[sealing]\nkeys = "s"\n'
    (folder / "gateway.toml").write_text(f"{text}\n[policy]\n{rest}{rich}{limits}{tail}")
    backends = {name: f"127.0.0.1:{server.port}" for name, server in mesh.services.items()}
    state.record(mesh.home, state.Running(mesh.target, str(folder), backends))
    return folder / "gateway.toml"


async def explained(mesh: Mesh, tenant: str, name: str = "") -> dict[str, Any]:
    """What the command says, from its own core: grpc.aio has one event loop in a process."""
    _, loaded = active_config.in_use(None)
    question = Question(explain.named(METHOD), name)
    return explain.as_json(await policy_commands._explained(question, loaded, mesh.token(tenant=tenant), None))


async def test_the_command_names_what_it_read_and_knows_aliases(home: Path, mesh: Mesh) -> None:
    path = elsewhere(mesh)
    words = ("policy", "explain", "--token", "-", "--method", METHOD, "--json", "--model", "first")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from meshgate.cli.main import main; main()", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(mesh.token(tenant="acme").encode())
    told = json.loads(said)
    assert (process.returncode, told["configuration"]) == (0, str(path))
    assert model(told) == (True, "alpha (first is an alias)")


def model(told: dict[str, Any]) -> tuple[Any, str]:
    step = next(each for each in told["steps"] if each["step"] == "model")
    return step["passed"], step["detail"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    return tmp_path


async def test_it_knows_aliases_as_the_gateway_does(home: Path, mesh: Mesh) -> None:
    elsewhere(mesh)
    assert model(await explained(mesh, "acme", "first")) == (True, "alpha (first is an alias)")
    assert model(await explained(mesh, "acme", "alpha")) == (True, "alpha")
    assert model(await explained(mesh, "acme")) == (True, "alpha (the service's default)")
    assert model(await explained(mesh, "rich")) == (True, "alpha (the tenant's default)")
    assert (await explained(mesh, "acme", "beta"))["reason"] == "MODEL_NOT_ALLOWED"
    assert (await explained(mesh, "none", "first"))["reason"] == "MODEL_NOT_ALLOWED"
    assert (await explained(mesh, "none"))["reason"] == "MODEL_NOT_ALLOWED"
    absent = await explained(mesh, "rich", "alhpa")
    assert model(absent) == (None, "the generation service lists no model 'alhpa' now; did you mean 'alpha'?")


@pytest.mark.parametrize("tenant", ["acme", "odd", "rich", "none", "nobody"])
@pytest.mark.parametrize("name", ["", "alpha", "first", "beta"])
async def test_what_it_says_is_what_the_gateway_does(home: Path, mesh: Mesh, tenant: str, name: str) -> None:
    elsewhere(mesh)
    told = await explained(mesh, tenant, name)
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(model=name, prompt="x")
        try:
            await stub.Generate(request, metadata=mesh.auth(mesh.token(tenant=tenant)))
            reason = None
        except grpc.aio.AioRpcError as error:
            reason = status.from_rpc_error(error).reason
    assert told["reason"] == reason


async def test_it_shows_the_limits_that_an_alias_has(home: Path, mesh: Mesh) -> None:
    elsewhere(mesh)
    for name in ("first", "alpha"):
        told = await explained(mesh, "acme", name)
        assert "requests_per_second of alpha" in [each["limit"] for each in told["limits"]]


async def test_it_notes_names_that_apply_to_nothing(home: Path, mesh: Mesh) -> None:
    elsewhere(mesh)
    assert (await explained(mesh, "acme"))["notes"] == [
        "policy.tenants.odd.models: 'first' is an alias of 'alpha': write that name here",
        "limits.models: 'alhpa' is not a model that a service lists now; did you mean 'alpha'?",
    ]


async def test_a_limit_for_an_alias_holds_for_the_model_by_all_its_names(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)

        async def generate(name: str, subject: str) -> None:
            request = generation_pb2.GenerateRequest(model=name, prompt="x")
            await stub.Generate(request, metadata=mesh.auth(mesh.token(tenant="rich", subject=subject)))

        for subject, names in (("a", ("first", "alpha")), ("b", ("alpha", "first")), ("c", ("", "first"))):
            await generate(names[0], subject)
            error = await meshes.refused(generate(names[1], subject))
            assert isinstance(error, errors.LimitExceeded)
            assert error.limit == "requests_per_second of alpha"
        for _ in range(3):
            await generate("beta", "a")


@pytest.mark.parametrize("name", ["beta", "nothing", "first ", "\x1b[2J", "a" * 128])
async def test_a_model_that_is_forbidden_looks_like_one_that_is_not_there(mesh: Mesh, name: str) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(model=name, prompt="x")
        error = await meshes.refused(stub.Generate(request, metadata=mesh.auth(mesh.token(tenant="acme"))))
    assert (error.reason, error.message) == ("MODEL_NOT_ALLOWED", "this tenant may not use this model")


async def test_a_name_that_is_not_there_is_in_the_log_and_in_a_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "gateway.authorisation.reference_watch"):
        services = {"generation": ScriptedApplication()}
        metrics = {"listen": "127.0.0.1:0"}
        async with meshes.mesh(tmp_path, services, policy=POLICY, limits=LIMITS, metrics=metrics) as mesh:
            reader, writer = await asyncio.open_connection("127.0.0.1", mesh.gateway.exposition.port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            page = (await reader.read()).decode()
            writer.close()
    assert {record.__dict__["key"] for record in caplog.records} == {"policy.tenants.odd.models", "limits.models"}
    assert 'meshgate_gateway_unmatched_names{kind="absent"} 1.0' in page
    assert 'meshgate_gateway_unmatched_names{kind="alias"} 1.0' in page


def test_without_a_mesh_and_without_a_source_tree_it_says_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "default_configs", lambda: home / "deploy" / "config")
    for words in (["explain", "--token", "x", "--method", METHOD], ["revoke", "--issuer", "i", "--subject", "s"]):
        result = CliRunner().invoke(app, ["policy", *words])
        assert result.exit_code == 2
        assert result.output.count("\n") == 1
        assert str(home) in result.output and "--config" in result.output and "MESHGATE_HOME" in result.output


def test_where_a_service_is_can_be_said_as_to_the_gateway(home: Path) -> None:
    given = default_configs() / "gateway.toml"
    _, loaded = active_config.in_use(given, ["generation=generation:8451"])
    assert [each.target for each in loaded.backends.values()] == ["generation:8451", "127.0.0.1:8452", "127.0.0.1:8453"]
    result = CliRunner().invoke(
        app, ["policy", "explain", "--token", "x", "--method", METHOD, "--backend", "x=y", "--config", str(given)]
    )
    assert (result.exit_code, result.output) == (
        2,
        "not explained: --backend: unknown: x; known: generation, embedding, classification\n",
    )


def test_what_up_was_started_with_and_is_gone_is_named(home: Path) -> None:
    state.record(home, state.Running("127.0.0.1:1", str(home / "gone")))
    result = CliRunner().invoke(app, ["policy", "explain", "--token", "x", "--method", METHOD])
    assert result.exit_code == 2
    assert str(home / "gone" / "gateway.toml") in result.output


def test_revoke_writes_where_the_mesh_that_runs_looks(home: Path) -> None:
    folder = home / "elsewhere"
    folder.mkdir()
    shipped = (default_configs() / "gateway.toml").read_text()
    (folder / "gateway.toml").write_text(f'{shipped}\n[revocation]\nfile = "{folder}/revoked.json"\n')
    state.record(home, state.Running("127.0.0.1:1", str(folder)))
    words = ["policy", "revoke", "--issuer", "https://meshgate.local/dev", "--subject", "bob"]
    result = CliRunner().invoke(app, words)
    assert result.output == f"revoked: written to {folder}/revoked.json, as {folder}/gateway.toml says\n"
    assert json.loads((folder / "revoked.json").read_text())["revoked"][0]["subject"] == "bob"
