"""The stream of a call's deltas from the engine's thread to the call's coroutine, in order, until each candidate ends.

The engine ends a call before its deadline, by how long its last steps took. A step that takes longer than those must
not cost the answer: the tokens generated so far leave without waiting for that step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from meshgate.errors import MeshError
from services.generation.engine.interface import Delta, Finish, FinishReason


class OutputStream:
    """A Listener whose deltas a coroutine iterates over. It holds at most what the job may make."""

    def __init__(self, candidates: int, *, whole: bool = False, until: float | None = None) -> None:
        """Belongs to the running event loop. With `whole` that is woken once, when all candidates have ended, and not
        for every token. `until`, on the loop's clock, is when it ends what the engine has not ended; `close` follows.
        """
        self.output_tokens = 0
        """Tokens handed out so far, of all candidates."""
        self._open = set(range(candidates))
        self._making = candidates if whole else 0
        """Candidates that the engine has not ended, where they are awaited; and what they were given so far."""
        self._made: list[Delta] = []
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Sequence[Delta] | MeshError | None] = asyncio.Queue()
        self._timer = None if until is None else self._loop.call_at(until, self._queue.put_nowait, None)

    def deltas(self, deltas: Sequence[Delta]) -> None:
        """From the engine's thread."""
        if self._making:
            self._made += deltas
            self._making -= sum(delta.finish is not None for delta in deltas)
            if self._making:
                return
            deltas = self._made
        self._loop.call_soon_threadsafe(self._queue.put_nowait, deltas)

    def failed(self, error: MeshError) -> None:
        """From the engine's thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, error)

    @property
    def ended(self) -> bool:
        """Whether what was handed out last was the end of the last candidate."""
        return not self._open

    def close(self) -> None:
        """Leaves no timer behind."""
        if self._timer is not None:
            self._timer.cancel()

    async def __aiter__(self) -> AsyncIterator[Sequence[Delta]]:
        """What each step made. Ends after the last candidate's end; raises what the job failed with."""
        while self._open:
            made = await self._queue.get()  # bounded: the engine ends every job, with its own thread if need be
            if isinstance(made, MeshError):
                raise made
            if made is None:
                made = self._late()
            self._open.difference_update(delta.candidate for delta in made if delta.finish is not None)
            self.output_tokens += sum(len(delta.token_ids) for delta in made)
            yield made

    def _late(self) -> Sequence[Delta]:
        """The deltas not handed out yet, and an end for each candidate that has none."""
        made = list(self._made)
        open_ = self._open.difference(delta.candidate for delta in made if delta.finish is not None)
        return [*made, *(Delta(candidate, finish=Finish(FinishReason.CANCELLED)) for candidate in sorted(open_))]
