"""A recipient's sealing keys: kept in files, one a key, renewed with overlap, published by KeyService.

A key is published for the first part of its life and accepted for all of it. So a caller that fetched it just before
its successor came can still use it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshgate.runtime.config import ConfigError, reason
from meshgate.runtime.files import atomic_write, bounded_read
from meshgate.sealing.codec import SUITES, RecipientKey, Suite
from meshgate.v1 import sealed_pb2

_log = logging.getLogger(__name__)

_DAY_MS: Final = 24 * 3600 * 1000
_LIFE_MS: Final = 30 * _DAY_MS
_OVERLAP_MS: Final = 10 * _DAY_MS
_LOOK_MS: Final = 1000
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class DatedKey:
    """A key and when it may be used, in milliseconds since the Unix epoch."""

    key: RecipientKey
    not_before_ms: int
    not_after_ms: int

    def published(self, now_ms: int) -> bool:
        """Whether callers should still begin to use it."""
        return self.not_before_ms <= now_ms < self.not_after_ms - _OVERLAP_MS

    def accepted(self, now_ms: int) -> bool:
        """Whether what is sealed to it is opened."""
        return self.not_before_ms <= now_ms < self.not_after_ms


class Keyring:
    """The keys in force. Makes those that are missing."""

    def __init__(self, directory: Path, now_ms: Callable[[], int], key: str = "sealing.keys") -> None:
        """Reads `directory`, made when missing; `key` is what names it in the configuration.

        Raises ConfigError for a file that is no key, and for a directory that can't be used.
        """
        self._directory = directory
        self._key = key
        self._now_ms = now_ms
        self._looked_ms = 0
        try:
            self._look()
            self.renew()
        except OSError as error:
            raise ConfigError(f"{key}: {reason(error)}") from error

    def renew(self) -> None:
        """Deletes the keys whose time is over, and makes one for each suite that has none to publish. Raises OSError,
        and ConfigError for a file that is no key.

        A deleted key opens nothing any more, not even recorded calls that were sealed to it.
        """
        now = self._now_ms()
        self._delete(now)
        if not self._lacking(now):
            return
        self._look()  # another process may have made them
        self._delete(now)
        for suite in self._lacking(now):
            self._make(suite, now)

    def tend(self) -> None:
        """Renews the keys on disk, of any process. For a timer: errors are logged, and the present keys stay."""
        for step in (self._look, self.renew):
            try:
                step()
            except Exception:  # the border of the timer's task
                _log.exception("sealing keys not renewed")

    def find(self, key_id: str) -> RecipientKey | None:
        """The key of an id, if it is accepted now. One that is not known is looked for on disk, once a second at most:
        other processes make keys too.
        """
        now = self._now_ms()
        dated = self._keys.get(key_id)
        if dated is None and now - self._looked_ms >= _LOOK_MS:
            try:
                self._look()
            except (OSError, ConfigError):
                _log.exception("sealing keys not read")
            dated = self._keys.get(key_id)
        return dated.key if dated is not None and dated.accepted(now) else None

    def _look(self) -> None:
        self._looked_ms = self._now_ms()
        self._keys = {dated.key.public.key_id: dated for dated in _load(self._directory, self._key)}

    def _make(self, suite: Suite, now: int) -> None:
        dated = DatedKey(RecipientKey.generate(suite), now, now + _LIFE_MS)
        _save(self._directory, dated)
        self._keys[dated.key.public.key_id] = dated
        _log.info("new sealing key", extra={"key_id": dated.key.public.key_id, "suite": suite})

    def _delete(self, now: int) -> None:
        for dated in [dated for dated in self._keys.values() if now >= dated.not_after_ms]:
            _path(self._directory, dated).unlink(missing_ok=True)  # who shares the directory may have been first
            del self._keys[dated.key.public.key_id]
            _log.info("sealing key deleted", extra={"key_id": dated.key.public.key_id})

    def _lacking(self, now: int) -> list[Suite]:
        published = {dated.key.public.suite for dated in self._keys.values() if dated.published(now)}
        return [suite for suite in SUITES if suite not in published]

    def published(self, service: str = "") -> list[sealed_pb2.SealingKey]:
        """The keys that KeyService lists: the preferred suite first, within it the newest. Renews keys that are due.

        `service` is the recipient's full name; empty, it is the gateway.
        """
        now = self._now_ms()
        try:
            self.renew()
        except (OSError, ConfigError):
            _log.exception("sealing keys not renewed")
        current = [dated for dated in self._keys.values() if dated.published(now)]
        current.sort(key=lambda dated: (SUITES.index(dated.key.public.suite), -dated.not_before_ms))
        return [_message(dated, service) for dated in current]


def _message(dated: DatedKey, service: str) -> sealed_pb2.SealingKey:
    public = dated.key.public
    return sealed_pb2.SealingKey(
        key_id=public.key_id,
        suite=public.suite,
        public_key=public.data,
        fingerprint=public.fingerprint,
        not_before_unix_ms=dated.not_before_ms,
        not_after_unix_ms=dated.not_after_ms,
        recipient=sealed_pb2.SEALING_RECIPIENT_SERVICE if service else sealed_pb2.SEALING_RECIPIENT_GATEWAY,
        service=service,
    )


def _load(directory: Path, name: str) -> Iterable[DatedKey]:
    for path in sorted(directory.glob("*.json")):
        try:
            stored = json.loads(bounded_read.read(path, _MAX_BYTES))
            suite: Suite = stored["suite"]
            key = RecipientKey(suite, bytes.fromhex(stored["secret"]))
            yield DatedKey(key, int(stored["not_before_ms"]), int(stored["not_after_ms"]))
        except FileNotFoundError:
            continue  # another process of the directory deleted it just now
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise ConfigError(f"{name}: {path}: not a sealing key; move it away, and another is made") from None


def _path(directory: Path, dated: DatedKey) -> Path:
    return directory / f"{dated.key.public.key_id}.json"


def _save(directory: Path, dated: DatedKey) -> None:
    stored = {
        "suite": int(dated.key.public.suite),
        "secret": dated.key.to_bytes().hex(),
        "not_before_ms": dated.not_before_ms,
        "not_after_ms": dated.not_after_ms,
    }
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write.write(_path(directory, dated), json.dumps(stored).encode(), mode=atomic_write.OWNER_ONLY)
