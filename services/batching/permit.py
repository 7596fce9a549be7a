"""The slot of one call in a batcher."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic

from services.batching.worker import ItemT, ResultT
from services.common.caller import CallerIdentity

if TYPE_CHECKING:
    from services.batching.batcher import Batcher


class Permit(Generic[ItemT, ResultT]):
    """The slot of a call, from before its inputs are tokenised until it has its answer. Used with `async with`."""

    __slots__ = ("_batcher", "_tenant", "_wait", "who")

    def __init__(self, batcher: Batcher[ItemT, ResultT], who: CallerIdentity, *, wait: bool) -> None:
        self.who = who
        """The caller."""
        self._batcher = batcher
        self._tenant = who.tenant
        self._wait = wait

    @property
    def waits(self) -> bool:
        """Whether the call waits when no slot is free."""
        return self._wait

    async def __aenter__(self) -> Permit[ItemT, ResultT]:
        """Raises Unavailable as Batcher.submit does."""
        await self._batcher.admission.enter(self._tenant, wait=self._wait)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher.admission.leave(self._tenant)

    async def run(
        self, items: Sequence[ItemT], lengths: Sequence[int], *, yields: bool = False, remaining: float | None = None
    ) -> list[ResultT]:
        """Runs inputs as Batcher.submit does, in this slot."""
        admission, tenant, weight = self._batcher.admission, self._tenant, sum(lengths)
        await admission.take(tenant, weight, yields=yields, wait=self._wait, remaining=remaining)
        try:
            return await self._batcher.answer(tenant, items, lengths, yields=yields, remaining=remaining)
        finally:
            admission.give(tenant, weight, yields=yields)
