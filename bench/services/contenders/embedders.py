"""Who embeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench import process
from bench.services.clients import callers
from bench.services.clients.callers import Client
from bench.services.contenders import installed, mesh
from bench.services.contenders.contender import Contender, Served, Start
from bench.services.contenders.place import Place
from bench.services.workers import start
from services.embedding.config import ModelConfig
from services.models import packages

_MODEL: Final = "minilm"
_START_SECONDS: Final = 300.0
_MLSERVER: Final = Path(__file__).parent.parent / "mlserver"
_TOGETHER: Final = 32
"""Texts that a peer may batch: as many as there are callers."""
_GATHER_SECONDS: Final = 0.005


async def _meshgate(place: Place) -> Contender:
    port, service = mesh.start_service(place, "embedding", "embedding", {"model.device": f'"{place.device}"'})
    await mesh.serving(place, "embedding", port, service)
    door, gateway = mesh.start_gateway(place, "gateway-embedding", {"embedding": port})
    client = callers.Embedding(door)
    await mesh.answering(client.call, gateway)
    return Contender("meshgate", "Meshgate, the whole secure path", (gateway, service), Served(client))


async def _raw(place: Place) -> Contender:
    return await start.start(place, "raw", "the raw model, sorted batches", "embedding", "--device", place.device)


async def _plain(place: Place) -> Contender:
    title = "transformers' own model, sorted batches"
    return await start.start(place, "plain", title, "embedding", "--device", place.device, "--plain")


async def _infinity(place: Place) -> Contender:
    port = process.free_port()
    command = (
        installed.binary("infinity", "infinity_emb"),
        *("v2", "--model-id", directory(), "--served-model-name", _MODEL),
        *("--engine", "torch", "--device", place.device, "--dtype", place.dtype, "--batch-size", str(_TOGETHER)),
        *(
            "--no-bettertransformer",
            "--no-model-warmup",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--log-level",
            "warning",
        ),
    )
    pid = place.run("infinity", command, place.shared())
    return await _ready(pid, "infinity", "infinity (HTTP)", lambda: callers.HttpEmbedding(port, "/embeddings", _MODEL))


async def _mlserver(place: Place) -> Contender:
    program = installed.binary("mlserver", "mlserver")
    port = process.free_port()
    folder = _mlserver_folder(place, port)
    environment = place.shared(PYTHONPATH=str(_MLSERVER))
    pid = place.run("mlserver", (program, "start", str(folder)), environment)
    return await _ready(pid, "mlserver", "MLServer, adaptive batching (gRPC)", lambda: callers.V2(port, _MODEL))


def _mlserver_folder(place: Place, port: int) -> Path:
    folder = place.home / "mlserver"
    folder.mkdir(exist_ok=True)
    others = {"http_port": process.free_port(), "metrics_port": process.free_port()}
    server = {"host": "127.0.0.1", "grpc_port": port, **others, "parallel_workers": 1, "debug": False}
    model = {
        "name": _MODEL,
        "implementation": "minilm.MiniLM",
        "max_batch_size": _TOGETHER,
        "max_batch_time": _GATHER_SECONDS,
        "parameters": {"uri": directory(), "extra": {"device": place.device, "dtype": place.dtype}},
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return folder


async def _ready(pid: int, name: str, title: str, connect: Callable[[], Client]) -> Contender:
    await callers.answers(connect, lambda: process.alive(pid), _START_SECONDS)
    return Contender(name, title, (pid,), Served(connect()))


def directory() -> str:
    """The model that the service is shipped with."""
    return packages.locate(ModelConfig.model_validate({}).source)


ALL: Final[Mapping[str, Start]] = {
    "meshgate": _meshgate,
    "raw": _raw,
    "plain": _plain,
    "infinity": _infinity,
    "mlserver": _mlserver,
}
"""In the order of the table."""
