"""The sources of an issuer's keys, and their refresh.

Keys change in the background, never in a call. A token with an unknown kid is refused at once, and the URL is fetched
again soon. If its call waited, anyone without a token could hold calls open. An issuer that publishes a key before it
signs with it, as every issuer should, never meets this. However many unknown kids come, they cause at most one fetch
every ten seconds.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from gateway.authentication.config import JwksConfig
from gateway.authentication.keys import discovery, https_get
from gateway.authentication.keys.keyset import EMPTY, Key, KeySet, parse
from gateway.authentication.source import Source, SourceError, SourceFile
from meshgate.runtime.config import ConfigError
from meshgate.runtime.refresher import Refresher, SourceHealth

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""The interval at which a file is looked at."""
_UNKNOWN_SECONDS: Final = 10.0
"""Seconds after a fetch in which unknown kids cause no other."""
_FIRST_RETRY_SECONDS: Final = 1.0
_MAX_BYTES: Final = 1024 * 1024
_SAID: Final = 8
"""Keys that are left out, for which the log gives a reason."""
_JITTER: Final = 0.1
"""The part of an interval by which a fetch may come early, at random, so that replicas don't fetch at the
same moment.
"""

Clock = Callable[[], float]
Get = Callable[[], Awaitable[bytes]]


class KeySource(Source, Protocol):
    """The keys of one issuer."""

    generation: int
    """Grows when the keys change, so that tokens verified with old keys can be dropped."""
    good_until: float
    """On the monotonic clock: from then on keys that could not be confirmed are no longer trusted."""

    def find(self, kid: str | None) -> tuple[Key, ...]:
        """The keys named `kid`, each for other algorithms, or the only key for None."""


def source(config: JwksConfig, name: str, clock: Clock, issuer: str = "", key: str = "issuers") -> KeySource:
    """The source that `config` describes, called `name` in logs and metrics. Raises ConfigError.

    `clock` is monotonic, in seconds. `issuer` is the issuer to ask, for discovery. `key` is the place in the
    configuration.
    """
    if config.jwks is not None:
        return KeyFile(config.jwks, name, clock, f"{key}.jwks")
    context = https_get.trust(config.jwks_ca, f"{key}.jwks_ca")
    timeout = config.jwks_timeout_seconds

    async def get() -> bytes:
        return await https_get.get(str(config.jwks_url), context, seconds=timeout, max_bytes=_MAX_BYTES)

    async def discover() -> bytes:
        asked = time.monotonic()
        where = discovery.place(issuer)
        document = await https_get.get(where, context, seconds=timeout, max_bytes=discovery.MAX_BYTES)
        url = discovery.jwks_uri(document, issuer)
        left = timeout - (time.monotonic() - asked)
        return await https_get.get(url, context, seconds=left, max_bytes=_MAX_BYTES)

    return KeyUrl(discover if config.discovery else get, config, name, clock)


class _Keys:
    """A set of keys that can be replaced."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.generation = 0
        self.good_until = -math.inf
        self.health = SourceHealth(f"keys {name}")
        self._clock = clock
        self._keys: KeySet = EMPTY

    def find(self, kid: str | None) -> tuple[Key, ...]:
        return self._keys.find(kid)

    def _take(self, keys: KeySet) -> None:
        old, self._keys = self._keys, keys
        if keys.keys != old.keys:
            self.generation += 1
            _log.info("keys loaded", extra={"source": self.health.name, "count": len(keys.keys)})
        if keys.dropped and keys.dropped != old.dropped:
            said = {"source": self.health.name, "count": len(keys.dropped), "why": "; ".join(keys.dropped[:_SAID])}
            _log.warning("some keys of the set are left out", extra=said)


class KeyFile(_Keys):
    """Keys in a JWK Set file. They are valid until the file changes."""

    def __init__(self, path: Path, name: str, clock: Clock, key: str = "issuers.jwks") -> None:
        """Raises ConfigError when the file can't be used."""
        super().__init__(name, clock)
        self.refresher = Refresher(self.health, self.refresh, lambda: _LOOK_SECONDS, clock=clock)
        self._file = SourceFile(path, _MAX_BYTES)
        try:
            self._look()
        except SourceError as error:
            raise ConfigError(f"{key}: {path}: {error}") from None
        self.good_until = math.inf

    async def refresh(self) -> None:
        try:
            self._look()
        except SourceError as error:
            self._file.forget()
            self.health.failed(error)

    def _look(self) -> None:
        content = self._file.changed()
        if content is not None:
            self._take(parse(content))
        self.health.good(self._clock())


class KeyUrl(_Keys):
    """Keys at a URL, fetched ahead of need and, within limits, on an unknown kid."""

    def __init__(self, get: Get, config: JwksConfig, name: str, clock: Clock) -> None:
        """`get` fetches the JWK Set or raises SourceError, in bounded time."""
        super().__init__(name, clock)
        self.next_at = -math.inf
        """When, on the clock, the keys are fetched next."""
        self._get = get
        self._refresh_seconds = config.jwks_refresh_seconds
        self._keep_seconds = config.jwks_keep_seconds
        self._pause = _FIRST_RETRY_SECONDS
        self._asked_at = -math.inf
        timeout = 2 * config.jwks_timeout_seconds  # `get` has a bound of its own
        self.refresher = Refresher(self.health, self.refresh, self._left, timeout=timeout, clock=clock)

    def find(self, kid: str | None) -> tuple[Key, ...]:
        found = self._keys.find(kid)
        if not found:
            self._want()
        return found

    async def refresh(self) -> None:
        self._asked_at = self._clock()
        try:
            keys = parse(await self._get())
        except SourceError as error:
            self.health.failed(error)
            self._again(self._pause)
            self._pause = min(2 * self._pause, self._refresh_seconds)
            return
        self.good_until = self._asked_at + self._keep_seconds
        self._take(keys)
        self.health.good(self._clock())
        self._pause = _FIRST_RETRY_SECONDS
        self._again(self._refresh_seconds)

    def _left(self) -> float:
        """Seconds until the next fetch."""
        return self.next_at - self._clock()

    def _want(self) -> None:
        soonest = self._asked_at + _UNKNOWN_SECONDS
        if soonest < self.next_at:
            self.next_at = soonest
            self.refresher.wake()

    def _again(self, seconds: float) -> None:
        early = random.uniform(0, _JITTER)  # noqa: S311 - spreads load, hides nothing
        self.next_at = self._clock() + seconds * (1 - early)
