"""How a candidate ends: a limit that falls into the middle of a character leaves the half out; a model's own stays."""

from __future__ import annotations

import pytest

from services.generation.engine.interface import FinishReason, Job
from services.generation.model.sampling import Choice
from services.generation.scheduler.sequence import GenerationRequest, Sequence
from services.generation.text.detokenise import TokenBytes

END = 256
TEXT = "é好👩"


class Bytes:
    """A vocabulary in which token n is the byte n, written as byte-level tokenisers write it, and 256 ends a text."""

    all_special_ids = (END,)

    def __len__(self) -> int:
        return 257

    def convert_ids_to_tokens(self, ids: list[int], /) -> list[str]:
        return [f"<0x{index:02X}>" if index != END else "▁" for index in ids]

    def decode(self, token_ids: list[int], /) -> str:
        return ""


class Listener:
    def deltas(self, deltas: object) -> None: ...

    def failed(self, error: Exception) -> None: ...


def ended(given: bytes, limit: int, budget: int | None, end: bool) -> tuple[str, FinishReason]:
    job = Job(prompt=(1,), max_output_tokens=limit, token_cap=None if budget is None else 1 + budget)
    made = Sequence(GenerationRequest(job, Listener(), 0.0), 0, TokenBytes(Bytes()), frozenset({END}), 1000)
    text = ""
    for token in [*given, *([END] if end else [])]:
        delta = made.take(Choice(token, 0.0, ()))
        text += delta.text
        if delta.finish is not None:
            return text, delta.finish.reason
    delta = made.finish(FinishReason.CANCELLED)
    assert delta.finish is not None
    return text + delta.text, delta.finish.reason


@pytest.mark.parametrize("size", range(1, len(TEXT.encode()) + 1))
@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.BUDGET, FinishReason.CANCELLED])
def test_a_limit_never_leaves_half_a_character(size: int, reason: FinishReason) -> None:
    given = TEXT.encode()[:size]
    limit = size if reason is FinishReason.LENGTH else 1000
    budget = size if reason is FinishReason.BUDGET else None
    assert ended(given, limit, budget, end=False) == (given.decode(errors="ignore"), reason)


def test_half_a_character_that_the_model_itself_ended_with_is_shown_as_one_that_is_none() -> None:
    assert ended(TEXT.encode()[:1], 1000, None, end=True) == ("\ufffd", FinishReason.STOP)
