"""The looks at what is revoked: a gateway's promise of a second is one look, and looks are half a second apart."""

from __future__ import annotations

import asyncio

import pytest

from gateway.authentication.revocation import redis_stream, revocation_source


class Looks:
    """Counts them, and the pages that each one reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert revocation_source._LOOK_SECONDS <= 0.5
        self.pages: list[int] = []
        """One number for each that has begun."""
        self._ended = 0
        self._told = asyncio.Condition()
        refresh, page = revocation_source.Revocations.refresh, redis_stream._page

        async def looked(of: revocation_source.Revocations) -> None:
            self.pages.append(0)
            await refresh(of)
            async with self._told:
                self._ended += 1
                self._told.notify_all()

        async def turned(*arguments: object) -> redis_stream.Page:
            self.pages[-1] += 1
            return await page(*arguments)  # type: ignore[arg-type] # whatever it takes

        monkeypatch.setattr(revocation_source.Revocations, "refresh", looked)
        monkeypatch.setattr(redis_stream, "_page", turned)

    async def another(self) -> None:
        """Returns when the next that begins has ended: what was written before is in force."""
        begun = len(self.pages)
        async with asyncio.timeout(20), self._told:
            await self._told.wait_for(lambda: self._ended > begun)
