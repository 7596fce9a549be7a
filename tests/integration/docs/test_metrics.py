"""The reference of metrics names every metric that the registries of running processes have, and no other."""

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
from services.generation.config import GenerationConfig
from tests.support.network.mesh import mesh
from tools.reference.__main__ import FOLDER

_OWN = re.compile(r"meshgate_(?:gateway|generation|batcher)_\w+")


def reported(families: Iterable[Metric]) -> set[tuple[str, str]]:
    """The name and the type of each metric, as Prometheus shows them."""
    totals = ((family.name.removesuffix("_total"), family.type) for family in families)
    return {(f"{name}_total" if kind == "counter" else name, kind) for name, kind in totals if _OWN.match(name)}


def documented() -> set[tuple[str, str]]:
    rows = re.findall(r"^\| <a id=\"(\w+)\"></a>`\w+` \| (\w+) \|", (FOLDER / "metrics.md").read_text(), re.MULTILINE)
    return {(name, kind) for name, kind in rows if _OWN.match(name)}


async def test_every_metric_of_the_registries_is_in_it_and_no_other(tmp_path: Path) -> None:
    nowhere = tls.TlsConfig(certificate=tmp_path, key=tmp_path, ca=tmp_path)
    server = ServerConfig(tls=nowhere)
    services: tuple[Any, ...] = (
        Generation(GenerationConfig(server=server)),
        Embedding(EmbeddingConfig(server=server)),  # the classification service has the same metrics
    )
    there = {metric for each in services for metric in reported(each._metrics_server.registry.collect())}
    async with mesh(tmp_path, {}) as made:
        assert made.gateway.exposition is not None
        there |= reported(made.gateway.exposition.registry.collect())
    assert documented() == there
