"""docs/reference/kinds/decoders.md, from the table of kinds: `python -m tests.kinds.page` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
from services.generation.model import decoder_kinds
from services.generation.seq2seq.decoders import DECODERS
from tests.tinymodels import kinds as tiny

PLACE: Final = Path(__file__).parents[2] / "docs" / "reference" / "kinds" / "decoders.md"
_HEAD: Final = """# Kinds of model that generation serves

A kind is what a checkpoint's config.json calls its `model_type`. `make test-kinds` makes a tiny random model of each
kind and holds what it says through Meshgate against what it says in transformers alone: in pieces, in a batch beside
prompts of other lengths, after a shared beginning, and up to the end of the context. A kind that is not listed as
served is refused at the start by its name. A configuration of a served kind that gets other scores in a batch than
alone is refused at the start, too.

This page is written by `python -m tests.kinds.page`.
"""


def text() -> str:
    """The page."""
    refused = sorted(set(tiny.KINDS) - decoder_kinds.SERVED - {"gpt-sw3"})
    parts = (
        (f"Decoders that are served: {len(decoder_kinds.SERVED)}", sorted(decoder_kinds.SERVED)),
        (f"Encoder-decoders that are served: {len(DECODERS)}", sorted(DECODERS)),
        (f"Decoders that transformers has and that are refused: {len(refused)}", refused),
    )
    return _HEAD + "".join(f"\n## {title}\n\n{_listed(names)}\n" for title, names in parts)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) + "."


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
