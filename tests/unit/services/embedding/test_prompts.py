"""Prompts by name: those of the model, those of the configuration, and which stands where both have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import InvalidArgument
from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.v1 import embedding_pb2 as pb
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, ModelConfig
from services.embedding.servicer import EmbeddingServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert


async def test_the_configurations_prompts_stand_before_the_models(tmp_path: Path) -> None:
    nowhere = tls.TlsConfig(certificate=tmp_path, key=tmp_path, ca=tmp_path)
    source = str(build_tiny_bert(tmp_path))  # has query and passage
    prompts = {"query": "find ", "code": "code "}
    model = ModelConfig(source=source, dtype="float32", device="cpu", prompts=prompts)
    app = App(EmbeddingConfig(server=ServerConfig(tls=nowhere), model=model))
    await app.start()
    servicer = EmbeddingServicer(app._slot)
    context: Any = FakeContext()

    async def vector(text: str, name: str = "") -> list[float]:
        reply = await servicer.Embed(pb.EmbedRequest(inputs=[text], options=pb.EmbedOptions(prompt_name=name)), context)
        return list(reply.embeddings[0].floats.values)

    try:
        assert await vector("x", "query") == pytest.approx(await vector("find x"), abs=1e-5)
        assert await vector("x", "code") == pytest.approx(await vector("code x"), abs=1e-5)
        assert await vector("x", "passage") == pytest.approx(await vector("passage: x"), abs=1e-5)
        assert await vector("x", "query") != pytest.approx(await vector("x"), abs=1e-3)
        with pytest.raises(InvalidArgument, match="code, passage, query"):
            await vector("x", "document")
        assert app._slot.get().default.card.prompt_names == ["code", "passage", "query"]
    finally:
        await app.stop(1)


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_prompt_that_no_caller_could_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name has 1 to 64 bytes"):
        ModelConfig(prompts={name: "x"})
