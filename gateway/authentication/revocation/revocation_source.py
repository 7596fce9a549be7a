"""The source of the revocation list, and what holds while it is out of reach.

The gateway looks at it every half second: at the time and size of a file, or at the new entries of a stream in the
store (redis_stream.py). So an entry takes effect within a second of being written, for tokens that were verified before
too, and a call pays one comparison.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from gateway.authentication.config import RevocationConfig
from gateway.authentication.revocation.redis_stream import RevocationStream
from gateway.authentication.revocation.revocation_list import Revocable, RevocationList, Revoked
from gateway.authentication.source import SourceError, SourceFile
from gateway.redis_client import Client
from meshgate.runtime.config import ConfigError, Strict
from meshgate.runtime.config.problems import problems
from meshgate.runtime.refresher import Refresher, SourceHealth

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5
_REFRESH_SECONDS: Final = 120.0
"""The longest that one look may take: a stream of MAX_ENTRIES takes less than half of it."""
_FORGET_SECONDS: Final = 60.0
_MAX_BYTES: Final = 16 * 1024 * 1024
_NOBODY: Final = '{"revoked": []}'
_LISTS: Final = re.compile(rb'"revoked"\s*:')
"""In a RevocationDocument nothing else looks so: no entry has such a key, and a quote in a text has a backslash."""
_SAID: Final = 4
"""Issuers that a log line names."""

Clock = Callable[[], float]


class RevocationDocument(Strict):
    """The content of a file: `{"revoked": [...]}`, always the whole list."""

    revoked: Sequence[Revoked]


class RevocationStore(Protocol):
    """The place of the entries: a file or a stream."""

    async def look(self, known: RevocationList) -> None:
        """Brings `known` up to date. Raises SourceError and leaves the list in force."""


class RevocationFile:
    """A file; an entry that it no longer has is no longer revoked. A file that is not a list changes nothing."""

    def __init__(self, path: Path) -> None:
        self._file = SourceFile(path, _MAX_BYTES)

    async def look(self, known: RevocationList) -> None:
        self.look_now(known)

    def look_now(self, known: RevocationList) -> None:
        """The same without waiting: the file is read in the event loop."""
        content = self._file.changed()
        if content is None:
            return
        try:
            known.replace(_listed(content))
        except SourceError:
            self._file.forget()
            raise


def _listed(content: bytes) -> Sequence[Revoked]:
    if not content.strip():
        raise SourceError(f"empty: {_NOBODY} says that nobody is revoked")
    try:
        listed = RevocationDocument.model_validate_json(content).revoked
        if len(_LISTS.findall(content)) > 1:
            raise SourceError("`revoked` is repeated: parsers differ on the one that counts")
    except ValidationError as error:
        raise SourceError(f"not a revocation list: {problems(error, RevocationDocument)[0]}") from None
    if any(entry.restored for entry in listed):
        raise SourceError("restored is for the store: leave the entry out")
    return listed


class RevocationSource:
    """The revocation list, kept fresh in the background."""

    def __init__(
        self, source: RevocationStore | None, config: RevocationConfig, clock: Clock, now: Clock = time.time
    ) -> None:
        """`clock` is monotonic and `now` the time of day, both in seconds. Without a source nothing is revoked."""
        self.known = RevocationList()
        self.health = SourceHealth("revocations")
        interval = _LOOK_SECONDS if source is not None else math.inf
        self.refresher = Refresher(self.health, self.refresh, interval, timeout=_REFRESH_SECONDS, clock=clock)
        self.good_until = math.inf if source is None else -math.inf
        """On the clock: from then on all calls are refused. It is never infinite before a list was read."""
        self._source = source
        self._keep = config.on_outage == "keep"
        self._outage_seconds = config.outage_seconds
        self._clock = clock
        self._now = now
        self._forget_at = clock() + _FORGET_SECONDS
        self._trusted: frozenset[str] | None = None
        self._untrusted: frozenset[str] = frozenset()

    def trust(self, issuers: Iterable[str]) -> None:
        """Sets the trusted issuers. An entry of another issuer revokes nothing; a log line says so."""
        self._trusted = frozenset(issuers)
        self._log_untrusted_issuers()

    def covers(self, token: Revocable) -> bool:
        """Whether the token is revoked."""
        return self.known.covers(token)

    async def refresh(self) -> None:
        """Looks once. Never raises: a failure leaves the list in force."""
        if self._source is None:
            return
        try:
            await self._source.look(self.known)
        except SourceError as error:
            self.health.failed(error)
            return
        self.seen()

    def seen(self) -> None:
        """Records that the list is up to date."""
        now = self._clock()
        self.health.good(now)
        self._log_untrusted_issuers()
        self.good_until = math.inf if self._keep else now + self._outage_seconds
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_SECONDS
            self.known.forget(self._now())

    def _log_untrusted_issuers(self) -> None:
        if self._trusted is None or self.known.issuers <= self._trusted | self._untrusted:
            return
        fresh = sorted(self.known.issuers - self._trusted - self._untrusted)
        self._untrusted |= frozenset(fresh)
        said = {"count": len(fresh), "issuers": fresh[:_SAID]}
        _log.warning("revocations name issuers that no [[issuers]] entry has: they revoke nothing", extra=said)


def revocations_of(
    config: RevocationConfig | None, client: Client | None, prefix: str = "", clock: Clock = time.monotonic
) -> RevocationSource:
    """The list that `config` describes. `client` is of the [store]. Raises ConfigError where a file is not a list."""
    if config is None:
        return RevocationSource(None, RevocationConfig.model_construct(), clock)
    if config.file is not None:
        return _of_file(config.file, config, clock)
    if client is None:
        raise ConfigError("revocation.store: the [store] section is missing")
    return RevocationSource(RevocationStream(client, prefix, clock), config, clock)


def _of_file(path: Path, config: RevocationConfig, clock: Clock) -> RevocationSource:
    source = RevocationFile(path)
    made = RevocationSource(source, config, clock)
    try:
        source.look_now(made.known)
    except SourceError as error:
        raise ConfigError(f"revocation.file: {path}: {error}") from None
    made.seen()
    return made
