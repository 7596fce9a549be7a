"""Adapters behind a gateway, over real mutual TLS: the tenant is the token's, and only the owner may name one."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from meshgate import errors
from meshgate.cli.main import app as cli
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc, models_pb2, models_pb2_grpc
from services.generation.app import build
from services.generation.config import GenerationConfig
from tests.support.network import mesh as meshes
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.lora import build_lora


def configuration(model: Path, adapters: Path, **more: Path) -> GenerationConfig:
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    section = {"source": str(model), "name": "tiny", "dtype": "float32", "device": "cpu"}
    return GenerationConfig.model_validate(
        {
            "server": {"tls": tls},
            "model": section | {"adapters": {"directory": adapters, **more}},
            "engine": {"max_batch": 4, "threads": 1},
        }
    )


async def test_an_adapter_is_refused_to_another_tenant(tmp_path: Path) -> None:
    build_lora(tmp_path / "adapters" / "acme" / "support", 1)
    app = build(configuration(build_tiny_llama(tmp_path / "tiny"), tmp_path / "adapters"))
    async with meshes.mesh(tmp_path, {"generation": app}) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)

        async def generate(tenant: str, adapter: str, *forged: tuple[str, str]) -> list[int]:
            request = pb.GenerateRequest(
                prompt="hello", max_output_tokens=12, sampling=pb.Sampling(temperature=0), adapter=adapter
            )
            metadata = (*mesh.auth(mesh.token(tenant=tenant)), *forged)
            return list((await stub.Generate(request, metadata=metadata)).candidates[0].token_ids)

        plain, adapted = await generate("acme", ""), await generate("acme", "support")
        assert plain != adapted
        assert await generate("other", "") == plain
        refusals = [
            await meshes.refused(generate("other", "support")),
            await meshes.refused(generate("other", "support", ("x-meshgate-tenant", "acme"))),
            await meshes.refused(generate("other", "../acme/support")),
            await meshes.refused(generate("acme", "none")),
        ]
        assert {(type(each), each.reason, each.message) for each in refusals} == {
            (errors.NotFound, "ADAPTER_NOT_FOUND", "no such adapter")
        }
        streamed = pb.GenerateStreamRequest(request=pb.GenerateRequest(prompt="hello", adapter="support"))
        call = stub.GenerateStream(streamed, metadata=mesh.auth(mesh.token(tenant="other")))
        assert (await meshes.refused(call.read())).reason == "ADAPTER_NOT_FOUND"
        assert await generate("acme", "support") == adapted


async def test_a_tenant_is_told_its_own_adapters_and_those_for_all(tmp_path: Path) -> None:
    own, shared = tmp_path / "adapters", tmp_path / "shared"
    build_lora(own / "acme" / "support", 1)
    build_lora(own / "other" / "secret", 2)
    build_lora(shared / "formal", 3)
    app = build(configuration(build_tiny_llama(tmp_path / "tiny"), own, shared=shared))
    async with meshes.mesh(tmp_path, {"generation": app}) as mesh, mesh.channel() as channel:
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)

        async def told(tenant: str, *forged: tuple[str, str]) -> tuple[list[str], bool]:
            metadata = (*mesh.auth(mesh.token(tenant=tenant)), *forged)
            (model,) = (await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)).models
            return list(model.adapters), model.more_adapters

        assert await told("acme") == (["formal", "support"], False)
        assert await told("other") == (["formal", "secret"], False)
        assert await told("other", ("x-meshgate-tenant", "acme")) == (["formal", "secret"], False)
        assert await told("new") == (["formal"], False)
        shutil.rmtree(own / "acme" / "support")
        assert await told("acme") == (["formal"], False)


async def test_the_command_shows_adapters(tmp_path: Path) -> None:
    for name in (*(f"a{number:02}" for number in range(11)), "b"):
        (tmp_path / "adapters" / "acme" / name).mkdir(parents=True)
    app = build(configuration(build_tiny_llama(tmp_path / "tiny"), tmp_path / "adapters"))
    async with meshes.mesh(tmp_path, {"generation": app}) as mesh:

        async def run(*flags: str) -> str:
            access = ("--target", mesh.target, "--ca", str(tmp_path / "certs" / "ca.pem"))
            asked = (*access, "--token", mesh.token(tenant="acme"), "models", *flags)
            return (await asyncio.to_thread(CliRunner().invoke, cli, asked)).stdout

        assert "a00, a01, a02, a03, a04, a05, a06, a07, a08, a09, …" in await run()
        assert json.loads(await run("--json"))["models"][0]["adapters"][-1] == "b"


async def test_the_command_names_an_adapter(tmp_path: Path) -> None:
    build_lora(tmp_path / "adapters" / "acme" / "support", 1)
    app = build(configuration(build_tiny_llama(tmp_path / "tiny"), tmp_path / "adapters"))
    async with meshes.mesh(tmp_path, {"generation": app}) as mesh:

        async def run(tenant: str, *flags: str) -> Result:
            access = ("--target", mesh.target, "--ca", str(tmp_path / "certs" / "ca.pem"))
            asked = ("generate", "hello", "--max-tokens", "12", "--temperature", "0", "--json", *flags)
            token = ("--token", mesh.token(tenant=tenant))
            return await asyncio.to_thread(CliRunner().invoke, cli, (*access, *token, *asked))

        plain, adapted, refused = (
            await run("acme"),
            await run("acme", "--adapter", "support"),
            await run("other", "--adapter", "support"),
        )
        texts = [json.loads(each.stdout)["candidates"][0]["text"] for each in (plain, adapted)]
        assert texts[0] != texts[1]
        assert (refused.exit_code != 0, "no such adapter" in refused.stderr) == (True, True)
