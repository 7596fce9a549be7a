"""Where an issuer's keys come from and when they are looked at again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from gateway.authentication.keyset import Key, KeySet, KeySetError, parse
from meshgate.runtime.config import ConfigError

_log = logging.getLogger(__name__)

_CHECK_SECONDS: Final = 1.0
"""How often a file is looked at."""
_UNKNOWN_SECONDS: Final = 10.0
"""How often an unknown kid may have the keys read again: a flood of made-up kids costs one read in that time."""
_MAX_BYTES: Final = 1024 * 1024


class KeySource(Protocol):
    """The keys of one issuer. `generation` grows when they change, so that what an old one proved can be dropped."""

    generation: int

    def refresh(self) -> None:
        """Looks for new keys if it is time to. Never raises: bad news leave the old keys."""

    def find(self, kid: str | None) -> Key | None:
        """The key named `kid`, or the only one for None. An unknown name has the keys read again, rate-limited."""


class KeyFile:
    """Keys in a JWK Set file, read again when its time, size or inode changes."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds. Raises ConfigError when the file can't be used."""
        self.generation = 0
        self._path = path
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._check_at = clock() + _CHECK_SECONDS
        self._unknown_at = clock()
        self._keys: KeySet = {}
        try:
            self._seen = self._look()
            self._keys = parse(self._content())
        except (OSError, KeySetError) as error:
            raise ConfigError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error

    def refresh(self) -> None:
        now = self._clock()
        if now < self._check_at:
            return
        self._check_at = now + _CHECK_SECONDS
        try:
            changed = self._look() != self._seen
        except OSError:
            changed = self._seen is not None
        if changed:
            self._reload()

    def find(self, kid: str | None) -> Key | None:
        found = self._keys.get(kid)
        if found is None and self._clock() >= self._unknown_at:
            self._unknown_at = self._clock() + _UNKNOWN_SECONDS
            self._reload()
            found = self._keys.get(kid)
        return found

    def _reload(self) -> None:
        """Takes new keys, or keeps the old and says so."""
        try:
            self._seen = None  # what can't be read now is looked at again next time
            seen = self._look()
            keys = parse(self._content())
        except (OSError, KeySetError) as error:
            _log.error(
                "keys not reloaded, the old ones stay", extra={"issuer_keys": self._path.name, "why": str(error)}
            )
            return
        self._seen = seen
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
            _log.info("keys reloaded", extra={"issuer_keys": self._path.name, "count": len(keys)})

    def _look(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _content(self) -> bytes:
        with self._path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise KeySetError(f"longer than {_MAX_BYTES} bytes")
        return content
