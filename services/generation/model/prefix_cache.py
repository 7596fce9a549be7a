"""Beginnings that prompts share: their keys and values are kept, and not computed again.

A prompt that was read is kept in blocks of BLOCK tokens, each known by what it holds and the block before it; a later
prompt of the same tenant takes as many as it begins with. Blocks that two prompts share are kept once. Tenants share
none: how fast an answer begins would tell one what another asked. Nor do callers of whom nobody says whose they are.

There is room for so many blocks. Where it is used up, the tenant that has most of it loses what it used least lately,
so that no tenant's calls drive out what another, with less, has kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from services.generation.engine.interface import Job

BLOCK: Final = 32
"""Tokens."""
_NO_ADAPTER: Final = -1


class BlockStore(Protocol):
    """What it needs of a model."""

    def store(self, slot: int, row: int, start: int, count: int) -> None: ...

    def restore(self, slot: int, row: int, start: int) -> None: ...

    def forget(self) -> None: ...


class _Key(NamedTuple):
    """What a block holds, after what, as which adapter reads it."""

    adapter: int
    before: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Block:
    slot: int
    serial: int


class PrefixCache:
    """What is kept of one model. Plain state and the model's commands; for the thread that steps."""

    def __init__(self, model: BlockStore, blocks: int) -> None:
        """Room for so many blocks."""
        self.restored_tokens = 0
        """Tokens of prompts that were not read anew. May be read on any thread."""
        self._model = model
        self._room = blocks
        self._free = list(range(blocks))
        self._of: dict[str, OrderedDict[_Key, _Block]] = {}
        """Of each tenant, what was used longest ago first. A block is used after all that follow it, so that none is
        dropped before those.
        """
        self._serials = 0

    def restore(self, job: Job, row: int) -> int:
        """Puts into a row what a prompt begins with; returns how many tokens that is: one is left to read at least.
        Raises what the model raises.
        """
        found = self._find(job, (len(job.prompt) - 1) // BLOCK)
        for place, block in enumerate(found):
            self._model.restore(block.slot, row, place * BLOCK)
        self.restored_tokens += len(found) * BLOCK
        return len(found) * BLOCK

    def store(self, job: Job, row: int) -> None:
        """Keeps a prompt that was read into a row, as far as there is room. Raises what the model raises; what is kept
        has to be cleared then.
        """
        if not job.tenant:
            return
        kept = self._of.setdefault(job.tenant, OrderedDict())
        self._find(job, len(job.prompt))
        chain: set[_Key] = set()
        before = 0
        for place, tokens in enumerate(_blocks(job.prompt)):
            key = _key(job, before, tokens)
            block = kept.get(key)
            if block is None:
                slot = self._slot(chain)
                if slot is None:
                    break
                self._serials += 1
                block = kept[key] = _Block(slot, self._serials)
                self._model.store(slot, row, place * BLOCK, BLOCK)
            chain.add(key)
            before = block.serial
        self._find(job, len(job.prompt))
        self._of = {tenant: blocks for tenant, blocks in self._of.items() if blocks}

    def clear(self) -> None:
        """Forgets all, and gives its memory back."""
        self._of.clear()
        self._free = list(range(self._room))
        self._model.forget()

    def _find(self, job: Job, most: int) -> list[_Block]:
        """The blocks that a prompt begins with, which are used by that."""
        kept = self._of.get(job.tenant, OrderedDict()) if job.tenant else OrderedDict[_Key, _Block]()
        keys: list[_Key] = []
        before = 0
        for tokens in _blocks(job.prompt[: most * BLOCK]):
            key = _key(job, before, tokens)
            if key not in kept:
                break
            keys.append(key)
            before = kept[key].serial
        for key in reversed(keys):
            kept.move_to_end(key)
        return [kept[key] for key in keys]

    def _slot(self, chain: set[_Key]) -> int | None:
        """A place for a block after those of `chain`, which stay; None where there is no other to drop."""
        if self._free:
            return self._free.pop()
        tenant = max(self._of, key=lambda each: len(self._of[each]))
        kept = self._of[tenant]
        oldest = next(iter(kept))
        if oldest in chain:
            return None
        return kept.pop(oldest).slot


def _blocks(prompt: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
        yield tuple(prompt[start : start + BLOCK])


def _key(job: Job, before: int, tokens: tuple[int, ...]) -> _Key:
    return _Key(_NO_ADAPTER if job.adapter is None else job.adapter.serial, before, tokens)
