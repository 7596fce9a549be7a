"""A language model that counts, and what else the tests of the generation engine put in the place of real parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from meshgate.errors import MeshError
from services.generation.engine.interface import Delta, Finish, Job, Sampling
from services.generation.model.prefix_cache import Prefixes
from services.generation.scheduler.row_limit import Headroom
from services.generation.scheduler.scheduler import Stepper
from services.generation.scheduler.sequence import Group
from services.generation.text.detokenise import TokenBytes

VOCABULARY = 128
END = 0
POISON = 127
"""A token after which the model gives no numbers."""
BROKEN = 126
"""A token that the model can't read in a prompt."""


class Letters:
    """A vocabulary in which token n is the character n."""

    def __init__(self, end: int = END) -> None:
        self.all_special_ids = (end,)

    def __len__(self) -> int:
        return VOCABULARY

    def convert_ids_to_tokens(self, ids: list[int], /) -> list[str]:
        return ["" for _ in ids]

    def decode(self, token_ids: list[int], /) -> str:
        return chr(token_ids[0])


class CountingModel:
    """After token n comes n + 1. It keeps each row's tokens and checks that the engine tells the truth about them."""

    whole = False

    def __init__(self, rows: int = 4, context: int = 64) -> None:
        self.rows = rows
        self.context = context
        self.spare = rows
        self.content: list[list[int]] = [[] for _ in range(rows + 1)]
        self.batches: list[list[list[int]]] = []
        """What each decode ran over, a list of token lists."""
        self.reads: list[list[int]] = []
        self.wiped: list[int] = []
        self.fault: Exception | None = None
        """What every decode raises."""
        self.read_fault: Exception | None = None
        """What every read raises."""
        self.most_places = 10**9
        """Positions that there is memory for, of all rows that a decode runs over, or of a prompt that is read."""
        self.shrunk: list[int] = []
        self.kept: dict[int, list[int]] = {}
        self.copies: list[tuple[int, int, int]] = []
        self.stride = 1
        """What comes after token n: n + stride."""

    def read(self, row: int, tokens: Sequence[int], start: int) -> Tensor:
        if self.read_fault is not None:
            raise self.read_fault
        if BROKEN in tokens:
            raise ValueError("unreadable")
        self._fill(start + len(tokens))
        self.reads.append(list(tokens))
        self.content[row] = [*self.content[row][:start], *tokens]
        assert len(self.content[row]) == start + len(tokens)
        return self._logits(tokens[-1])

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        if self.fault is not None:
            raise self.fault
        assert len(tokens) <= self.rows
        self._fill(sum(lengths) + len(lengths))
        for row, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            self.content[row] = [*self.content[row][:length], token]
            assert len(self.content[row]) == length + 1
        self.batches.append([list(self.content[row]) for row in range(len(tokens))])
        return torch.stack([self._logits(token) for token in tokens])

    def copy(self, source: int, target: int, length: int) -> None:
        assert len(self.content[source]) >= length
        self.copies.append((source, target, length))
        self.content[target] = self.content[source][:length]

    def wipe(self, row: int) -> None:
        self.wiped.append(row)
        self.content[row] = []

    def keep(self, slot: int, row: int, start: int, count: int) -> None:
        self.kept[slot] = self.content[row][start : start + count]
        assert len(self.kept[slot]) == count

    def recall(self, slot: int, row: int, start: int) -> None:
        self.content[row] = [*self.content[row][:start], *self.kept[slot]]
        assert len(self.content[row]) == start + len(self.kept[slot])

    def forget(self) -> None:
        self.kept.clear()

    def shrink(self, length: int) -> None:
        self.shrunk.append(length)

    def _fill(self, places: int) -> None:
        if places > self.most_places:
            raise torch.OutOfMemoryError("secret of the device")

    def _logits(self, token: int) -> Tensor:
        if token == POISON:
            return torch.full((VOCABULARY,), math.nan)
        logits = torch.zeros(VOCABULARY)
        logits[(token + self.stride) % VOCABULARY] = 50.0
        return logits


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.text: dict[int, str] = {}
        self.finish: dict[int, Finish] = {}
        self.error: MeshError | None = None
        self.steps: list[list[Delta]] = []

    def deltas(self, deltas: Sequence[Delta]) -> None:
        assert self.error is None
        assert len({delta.candidate for delta in deltas}) == len(deltas), "one delta a candidate"
        self.steps.append(list(deltas))
        for delta in deltas:
            assert delta.candidate not in self.finish, "nothing after the end"
            self.tokens.setdefault(delta.candidate, []).extend(delta.token_ids)
            self.text[delta.candidate] = self.text.get(delta.candidate, "") + delta.text
            if delta.finish is not None:
                self.finish[delta.candidate] = delta.finish

    def failed(self, error: MeshError) -> None:
        assert self.error is None
        self.error = error


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A stepper over a counting model, with jobs put in by hand."""

    def __init__(
        self,
        rows: int = 4,
        context: int = 64,
        prefill_tokens: int = 64,
        end: int = END,
        guest_rows: int = 0,
        headroom: Headroom | None = None,
        prefix_blocks: int = 0,
    ) -> None:
        self.clock = Clock()
        self.model = CountingModel(rows, context)
        self.tokens = TokenBytes(Letters(end))
        self.stepper = Stepper(
            self.model,
            self.tokens,
            frozenset((end,)),
            prefill_tokens,
            self.clock,
            guest_rows=guest_rows,
            headroom=headroom,
            prefixes=Prefixes(self.model, prefix_blocks) if prefix_blocks else None,
        )

    def add(self, job: Job) -> tuple[Group, Heard]:
        heard = Heard()
        group = Group(job, heard, self.clock.now)
        self.stepper.add(group)
        return group, heard

    def run(self) -> None:
        for _ in range(10_000):
            if self.stepper.idle():
                return
            self.stepper.step()
        raise AssertionError("it never ends")


def greedy(prompt: str | Sequence[int], most: int = 5, **rest: object) -> Job:
    ids = [ord(character) for character in prompt] if isinstance(prompt, str) else list(prompt)
    return Job(ids, most, **({"sampling": Sampling(temperature=0.0)} | rest))  # type: ignore[arg-type]
