"""Why an answer ended early, for its reader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshgate.cli.screen import output


def explain(finishes: Iterable[Any], *, asked: bool) -> None:
    """Says on standard error that answers were cut, and what to do. `asked` tells that the caller set the length."""
    from meshgate.v1 import generation_pb2 as pb

    told = {
        pb.FINISH_REASON_LENGTH: "" if asked else "(cut at the most tokens of an answer; --max-tokens asks for more)",
        pb.FINISH_REASON_BUDGET: "(cut: your tokens of this minute are used up; ask for less, or again in a minute)",
        pb.FINISH_REASON_CANCELLED: "(cut at the deadline; --deadline allows more time)",
    }
    for reason in dict.fromkeys(finish.reason for finish in finishes):
        if line := told.get(reason):
            output.note(line)
