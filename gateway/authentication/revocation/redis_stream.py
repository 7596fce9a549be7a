"""The revocation list as a stream in the store, `PREFIX:revoked`, one entry for each field list: one command adds one.

    XADD meshgate:revoked * issuer https://id.example jti 6f1c until 1767225600

One cheap command reads the entries since the last look. A stream that was emptied or lost restores no token: only an
entry with `restored 1` does. New entries come first in every look, however long the stream is.

New entries alone do not show that another store took over, with other entries for earlier times. So the stream is read
again from its beginning every minute, a slice in each look. Where the store was away, or its last entry is older than a
known one, it is read again at once and in larger slices. Then entries whose tokens have expired are deleted, by the
store's clock.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final, cast

import redis

from gateway.authentication.revocation.revocation_list import MAX_ENTRIES, ListRebuild, RevocationList, Revoked
from gateway.authentication.source import SourceError
from gateway.redis_client import Client, cause, heed_cancellation

_log = logging.getLogger(__name__)

_REREAD_SECONDS: Final = 60.0
"""Seconds from the end of one rereading to the beginning of the next."""
_PAGE: Final = 200
"""Entries of one command: some 8 ms of the event loop, for their parsing alone."""
_SLICE: Final = 5
"""Pages that one look rereads."""
_URGENT_SLICE: Final = 25
"""The same after an outage: a look must still leave time for the next within the second."""
_TOLD: Final = 10_000
"""Names that one look applies to the list."""
_SPENT_SECONDS: Final = 3600 + 300
"""Seconds after its `until` at which an entry is deleted: an issuer's leeway, and an hour for clocks that disagree."""
_START: Final = "0-0"
Page = list[tuple[bytes, dict[bytes, bytes]]]


class RevocationStream:
    """A stream in the store, as a `RevocationStore`."""

    def __init__(self, client: Client, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._key = stream_key(prefix)
        self._clock = clock
        self._after = _START
        self._found: list[Revoked] = []
        """New entries that are not applied yet: a page that fails costs none of those before it."""
        self._again: _Rebuild | None = None
        self._again_at = math.inf
        self._urgent = False

    async def look(self, known: RevocationList) -> None:
        """See RevocationStore."""
        try:
            await self._news(known)
            await self._reread(known)
        except (redis.RedisError, OSError, TimeoutError) as error:
            self._restart()
            raise SourceError(f"the store is unavailable: {cause(error)}") from None
        except SourceError:
            self._again = None
            raise

    async def _news(self, known: RevocationList) -> None:
        last = await self._last()
        if _order(last) < _order(self._after):
            self._after = last
            self._restart()
        await self._find()
        known.add(self._found)  # all at once, so that no caller is refused between an entry and its `restored`
        if self._again is not None:
            self._again.rebuild.feed(self._found)
        self._found = []
        self._again_at = min(self._again_at, self._clock() + _REREAD_SECONDS)

    def _restart(self) -> None:
        """The store may have other entries for earlier times from here on."""
        self._again = None
        self._again_at = -math.inf
        self._urgent = True

    async def _reread(self, known: RevocationList) -> None:
        """Rereads a slice of the stream from its beginning."""
        if self._again is None:
            if self._clock() < self._again_at:
                return
            self._again = _Rebuild(self._client, self._key)
        if await self._again.slice(known, _URGENT_SLICE if self._urgent else _SLICE):
            self._again = None
            self._again_at = self._clock() + _REREAD_SECONDS
            self._urgent = False

    async def _last(self) -> str:
        newest: Any = await self._client.xrevrange(self._key, count=1)
        return _name(newest[0][0]) if newest else _START

    async def _find(self) -> None:
        """Reads the new entries, page by page. Each page is one bounded command."""
        more = True
        while more:
            page = await _page(self._client, self._key, self._after)
            self._found += [entry for identity, fields in page if (entry := _entry(identity, fields)) is not None]
            self._after = _name(page[-1][0]) if page else self._after
            more = len(page) == _PAGE
            if len(self._found) > MAX_ENTRIES:
                raise SourceError(f"more than {MAX_ENTRIES} entries")


class _Rebuild:
    """One rereading of the whole stream, a slice at a time."""

    def __init__(self, client: Client, key: str) -> None:
        self.rebuild = ListRebuild()
        self._client = client
        self._key = key
        self._after = _START
        self._ended = False
        self._spent: float | None = None

    async def slice(self, known: RevocationList, pages: int) -> bool:
        """Reads the next pages, and at the end applies them to `known`. True when that was all."""
        for _ in range(pages):
            if self._ended:
                return self.rebuild.finish(known, _TOLD)
            await self._read()
        return False

    async def _read(self) -> None:
        page = await _page(self._client, self._key, self._after)
        self._ended = len(page) < _PAGE
        if not page:
            return
        self._after = _name(page[-1][0])
        spent = await self._note(page)
        if self._ended:
            spent.discard(page[-1][0])  # the last entry shows whether a stream went back
        if spent:
            await self._delete(spent)

    async def _note(self, page: Page) -> set[bytes]:
        """Collects the entries of a page. Returns the names of the expired ones."""
        if self._spent is None:
            seconds, _ = await self._client.time()
            self._spent = seconds - _SPENT_SECONDS
        spent: set[bytes] = set()
        for identity, fields in page:
            entry = _entry(identity, fields)
            if entry is None:
                continue
            if entry.until is not None and entry.until <= self._spent and not entry.restored:
                spent.add(identity)
            else:
                self.rebuild.feed((entry,))
        return spent

    async def _delete(self, names: set[bytes]) -> None:
        try:
            await self._client.xdel(self._key, *names)
        except redis.ResponseError:  # the gateway may have no right to write
            _log.debug("spent revocations stay in the store")


def stream_key(prefix: str) -> str:
    """The key of the list in the store."""
    return f"{prefix}:revoked"


async def _page(client: Client, key: str, after: str) -> Page:
    page: Any = await client.xrange(key, min=f"({after}", count=_PAGE)
    heed_cancellation()
    return cast(Page, page)


def _name(identity: bytes) -> str:
    return identity.decode("ascii")


def _order(name: str) -> tuple[int, int]:
    milliseconds, _, serial = name.partition("-")
    return int(milliseconds), int(serial)


def _entry(identity: bytes, fields: dict[bytes, bytes]) -> Revoked | None:
    """An entry of the stream. An unreadable one is logged, and must not keep out those after it."""
    try:
        text: Any = {name.decode(): value.decode() for name, value in fields.items()}
        return Revoked.model_validate(text)
    except ValueError:  # UnicodeDecodeError and ValidationError are
        _log.error("a revocation in the store can't be read: it revokes nothing", extra={"entry": identity.decode()})
        return None
