"""The written pages: each configuration that they show is one that some process of the mesh reads."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.config import GatewayConfig
from services.classification.config import ClassificationConfig
from services.embedding.config import EmbeddingConfig
from services.generation.config import GenerationConfig

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
SHIPPED = ROOT / "deploy" / "config"
CONFIGS: Mapping[str, type[BaseModel]] = {
    "gateway": GatewayConfig,
    "generation": GenerationConfig,
    "embedding": EmbeddingConfig,
    "classification": ClassificationConfig,
}


def blocks(page: Path) -> Iterator[str]:
    """The TOML of a page, that within lists too."""
    for _, block in re.findall(r"^( *)```toml\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE):
        yield dedent(block).replace("${MESHGATE_STORE_URL}", "rediss://store.example")


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "reference" not in page.parts and any(blocks(page))]


def merged(base: Any, over: Any) -> Any:
    """`base` with what `over` says; tables are merged, all else is replaced."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {name: merged(base.get(name), over[name]) if name in over else base[name] for name in {**base, **over}}


def faults(name: str, said: Mapping[str, Any]) -> str:
    """What is wrong with the shipped configuration of a process once it has `said`, too; empty where nothing is."""
    shipped = tomllib.loads((SHIPPED / f"{name}.toml").read_text())
    try:
        CONFIGS[name].model_validate(merged(shipped, said))
    except ValidationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_some_process_reads_the_configuration_that_it_shows(page: Path) -> None:
    for block in blocks(page):
        found = [faults(name, tomllib.loads(block)) for name in CONFIGS]
        assert "" in found, f"{block}\n{found}"


def test_a_key_that_no_process_has_is_found() -> None:
    assert all(faults(name, {"no_such_key": 1}) for name in CONFIGS)
