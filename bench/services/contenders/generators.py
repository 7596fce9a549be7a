"""Who generates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench import process
from bench.services.clients import callers
from bench.services.contenders import installed, mesh
from bench.services.contenders.contender import Contender, Start, Streamed
from bench.services.contenders.place import Absent, Place, cores
from bench.services.workers import start

TOKENS: Final = 64
"""Of each answer."""
_START_SECONDS: Final = 600.0


class Model(NamedTuple):
    """What everybody is to run."""

    title: str
    directory: Path
    """As save_pretrained wrote it."""
    gguf: Path | None
    """The same weights for llama.cpp, where there are."""


def contenders(model: Model) -> Mapping[str, Start]:
    """In the order of the tables."""
    return {
        "meshgate": partial(_meshgate, model),
        "transformers": partial(_transformers, model),
        "generate": partial(_worker, model, "generate", "model.generate, no server"),
        "llama": partial(_llama, model, "llama", "llama.cpp, the shipped GGUF, no server", bfloat16=False),
        "llama-bf16": partial(_llama, model, "llama-bf16", "llama.cpp, bfloat16, no server", bfloat16=True),
    }


def engines(model: Model) -> Mapping[str, Start]:
    """Loops without a server. Both have threads that soon sleep, as they would within one."""
    return {
        "steps": partial(_worker, model, "steps", "Meshgate's step loop", sleeps=True),
        "paged": partial(_worker, model, "paged", "transformers' continuous batching", sleeps=True),
    }


async def _meshgate(model: Model, place: Place) -> Contender:
    run = {"model.source": f'"{model.directory}"', "model.device": f'"{place.device}"'}
    port, service = mesh.start_service(place, "generation", "meshgate", run)
    await mesh.serving(place, "generation", port, service)
    door, gateway = mesh.start_gateway(place, "gateway-meshgate", {"generation": port})
    client = callers.Generation(door, TOKENS)
    await mesh.answering(client.call, gateway)
    return Contender("meshgate", "Meshgate, the whole secure path", (gateway, service), Streamed(client))


async def _transformers(model: Model, place: Place) -> Contender:
    port = process.free_port()
    command = (
        installed.binary("transformers", "transformers"),
        *("serve", str(model.directory), "--continuous-batching", "--device", place.device, "--dtype", place.dtype),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
    )
    pid = place.run("transformers", command, place.shared())

    def connect() -> callers.HttpCompletion:
        return callers.HttpCompletion(port, str(model.directory), TOKENS)

    await callers.answers(connect, lambda: process.alive(pid), _START_SECONDS)
    return Contender("transformers", "transformers serve (HTTP)", (pid,), Streamed(connect()))


async def _worker(model: Model, name: str, title: str, place: Place, *, sleeps: bool = False) -> Contender:
    flags = ("--model", str(model.directory), "--device", place.device, "--dtype", place.dtype)
    return await start.start(place, name, title, name, *flags, tokens=TOKENS, sleeps=sleeps)


async def _llama(model: Model, name: str, title: str, place: Place, *, bfloat16: bool) -> Contender:
    if model.gguf is None:
        raise Absent("there is no GGUF of these weights")
    if place.device != "cpu":
        raise Absent("built for the CPU here")
    flags = ["--gguf", str(model.gguf), "--threads", str(cores())]
    flags += ["--bfloat16", str(place.home / "bfloat16.gguf")] if bfloat16 else []
    python = installed.binary("llama_cpp", "python")
    return await start.start(place, name, title, "llama", *flags, python=python, tokens=TOKENS)
