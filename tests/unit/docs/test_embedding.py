"""docs/howto/embed-in-bulk.md: it tells of every field and encoding, and its numbers are those of the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from meshgate.v1 import embedding_pb2 as pb
from services.common import ordered_stream
from services.embedding.config import EngineConfig, ModelConfig
from services.embedding.vectors import encoded

TEXT = (Path(__file__).parents[3] / "docs" / "howto" / "embed-in-bulk.md").read_text()


def test_the_configuration_it_shows_is_one() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert ModelConfig.model_validate(tomllib.loads(shown)["model"]).prompts == {
        "query": "query: ",
        "passage": "passage: ",
    }


def test_every_field_is_told() -> None:
    told = set(re.findall(r"^\| `([a-z_]+)` \|", TEXT, re.MULTILINE))
    fields = {field.name for kind in (pb.EmbedRequest, pb.EmbedOptions) for field in kind.DESCRIPTOR.fields}
    assert told == fields - {"options"}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("FLOAT_LIST", "a list of floats"),
        ("FLOAT32", "`FLOAT32`"),
        ("FLOAT16", "`FLOAT16`"),
        ("INT8", "`INT8`"),
        ("BINARY", "`BINARY`"),
    ],
)
def test_encodings_are_as_long_as_it_says(name: str, row: str) -> None:
    made = encoded(np.ones(384, np.float32), pb.EmbeddingEncoding.Value(f"EMBEDDING_ENCODING_{name}"))
    assert f"| {row} | {len(made.packed) or 4 * len(made.floats.values):,} bytes" in TEXT


def test_bounds_are_those_of_the_code() -> None:
    engine = EngineConfig.model_validate({})
    for name in ("batch_tokens", "queue_calls", "queue_tokens", "hang_seconds"):
        assert f"`{name}` ({getattr(engine, name):,.0f})" in TEXT
    assert f"`max_batch` texts ({engine.max_batch})" in TEXT
    assert (ordered_stream.IN_HAND, "Eight messages of a stream" in TEXT) == (8, True)
