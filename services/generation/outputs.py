"""One call's way from the engine's thread to its coroutine: what a step made, in order, until every candidate ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from meshgate.errors import MeshError
from services.generation.engine import Delta


class Outputs:
    """A Listener whose deltas a coroutine iterates over. It holds at most what the job may make."""

    def __init__(self, candidates: int, *, whole: bool = False) -> None:
        """Belongs to the running event loop. With `whole` that is woken once, when all candidates have ended, and not
        for every token.
        """
        self.output_tokens = 0
        """Tokens handed out so far, of all candidates."""
        self._open = candidates
        self._making = candidates if whole else 0
        """Candidates that the engine has not ended, where they are awaited; and what they were given so far."""
        self._made: list[Delta] = []
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Sequence[Delta] | MeshError] = asyncio.Queue()

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
        return self._open == 0

    async def __aiter__(self) -> AsyncIterator[Sequence[Delta]]:
        """What each step made. Ends after the last candidate's end; raises what the job failed with."""
        while self._open:
            made = await self._queue.get()  # bounded: the engine ends every job, with its own thread if need be
            if isinstance(made, MeshError):
                raise made
            self._open -= sum(delta.finish is not None for delta in made)
            self.output_tokens += sum(len(delta.token_ids) for delta in made)
            yield made
