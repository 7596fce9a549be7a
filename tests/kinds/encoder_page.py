"""docs/reference/kinds/encoders.md, of what the matrix of encoders, classifiers and taggers has found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "kinds" / "encoders.md"
WRITE: Final = "MESHGATE_WRITE_KINDS"
"""Set to write the page, and not only compare it."""

SERVED: Final = "served"
UNMADE: Final = "unmade"
"""What became of a kind; anything else is why it is refused."""

_HEAD: Final = """# Kinds of models for embedding and classification

`make test-kinds` builds a tiny random model of every kind that transformers lists for texts, and holds it against
transformers: alone, in pairs, and in a batch of inputs of other lengths, with tokenisers of each family in turn. Then
it compares this page with what it found. `MESHGATE_WRITE_KINDS=1 make test-kinds` writes the page. The names are those
of `model_type` in a model's config.json.
"""
_TITLES: Final = {
    "encoder": "Encoders, for embedding and zero-shot",
    "classifier": "Classifiers of texts",
    "tagger": "Classifiers of tokens",
}

Found = Mapping[str, Mapping[str, str]]
"""By sort of model (a key of the titles) and kind."""


def page(found: Found) -> str:
    """The whole page."""
    return _HEAD + "".join(_section(title, found[sort]) for sort, title in _TITLES.items())


def _section(title: str, kinds: Mapping[str, str]) -> str:
    served = sorted(kind for kind, said in kinds.items() if said == SERVED)
    unmade = sorted(kind for kind, said in kinds.items() if said == UNMADE)
    refused = sorted((kind, said) for kind, said in kinds.items() if said not in (SERVED, UNMADE))
    lines = [f"\n## {title}\n", f"Served right, {len(served)}: {', '.join(served)}.\n"]
    if refused:
        lines += [f"Refused at the start, {len(refused)}:\n", "| kind | reason |\n| --- | --- |"]
        lines += [f"| {kind} | {said} |" for kind, said in refused]
        lines.append("")
    if unmade:
        lines.append(f"Not tried, because transformers makes no tiny one here, {len(unmade)}: {', '.join(unmade)}.\n")
    return "\n".join(lines)


def settled(found: Found) -> str:
    """The page as it should be; it is written first where that is asked."""
    made = page(found)
    if os.environ.get(WRITE):
        PAGE.write_text(made, encoding="utf-8")
    return made
