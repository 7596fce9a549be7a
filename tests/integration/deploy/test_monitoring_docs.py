"""docs/howto/monitor.md: its alerts name metrics that exist, with the defaults of the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from services.embedding.app import App as Embedding
from services.embedding.config import EmbeddingConfig
from services.generation.app import App as Generation
from services.generation.config import EngineConfig, GenerationConfig
from tests.support.network.mesh import mesh

TEXT = (Path(__file__).parents[3] / "docs" / "howto" / "monitor.md").read_text()


def names(families: Iterable[Metric]) -> set[str]:
    """As Prometheus knows them."""
    totals = ((family.name.removesuffix("_total"), family.type == "counter") for family in families)
    found = {f"{name}_total" if counts else name for name, counts in totals}
    return {name for name in found if name.startswith("meshgate_")}


async def test_every_metric_that_it_names_exists(tmp_path: Path) -> None:
    nowhere = tls.TlsConfig(certificate=tmp_path, key=tmp_path, ca=tmp_path)
    server = ServerConfig(tls=nowhere)
    services: tuple[Any, ...] = (
        Generation(GenerationConfig(server=server)),
        Embedding(EmbeddingConfig(server=server)),  # and the classification service tells what it tells
    )
    there = {name for each in services for name in names(each._metrics_server.registry.collect())}
    async with mesh(tmp_path, {}) as made:
        assert made.gateway.exposition is not None
        there |= names(made.gateway.exposition.registry.collect())
    named = set(re.findall(r"meshgate_(?:gateway|generation|batcher)_\w+", TEXT))
    assert len(named) > 10
    assert not named - there


def test_alerts_have_the_defaults_of_the_code() -> None:
    engine = EngineConfig.model_validate({})
    places = engine.max_batch + engine.max_queue
    assert f"`max_batch = {engine.max_batch}` and `max_queue = {engine.max_queue}`" in TEXT
    assert f"`meshgate_generation_rows < {engine.max_batch}`" in TEXT
    assert f"candidates > {places * 3 // 4}`" in TEXT
    assert f"0.75 * {engine.queue_tokens}`" in TEXT
