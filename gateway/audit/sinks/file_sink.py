"""The log on disk as a sink."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from gateway.audit.chain.file_watch import LogFileChanged, PeriodicCheck
from gateway.audit.chain.fsync import Disk
from gateway.audit.chain.hash_chain import BrokenChain
from gateway.audit.chain.ledger import Ledger
from gateway.audit.config import AuditConfig
from gateway.audit.sinks.sink import SinkFailed
from meshgate.runtime.config import ConfigError, reason
from meshgate.runtime.refresher import Refresher

_log = logging.getLogger(__name__)

_REMEDY: Final = (
    "`meshgate audit verify` says more. Put back what was moved, cut or replaced, from where it is or from a backup, "
    "and start again; or move the whole directory aside, keep it for whoever audits it, and a new log begins "
    "(docs/howto/hand-the-audit-over.md)"
)


class FileSink:
    """Opens the ledger of one writer when the sink is opened. A Sink."""

    def __init__(
        self,
        config: AuditConfig,
        writer: str,
        disk: Disk,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = partial(Ledger, config, disk, writer=writer, clock=clock, monotonic=monotonic)
        self._ledger: Ledger | None = None
        self._check = PeriodicCheck(lambda: self._opened().check_unchanged(), monotonic)

    @property
    def key_refresher(self) -> Refresher | None:
        """Looks for new signing keys, on the sink's thread; None before the log is open."""
        return None if self._ledger is None else self._ledger.key_refresher

    def open(self) -> None:
        """Recovers what a crash left. Raises ConfigError when the log is in use, unusable or altered."""
        try:
            self._ledger = self._make()
        except BlockingIOError:
            raise ConfigError("audit.directory: another process writes to this audit log") from None
        except BrokenChain as error:
            raise ConfigError(f"audit.directory: the audit log is not as it was left: {error}. {_REMEDY}") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"audit.directory: {reason(error)}") from error

    def write(self, records: Sequence[bytes]) -> None:
        """Returns when all records are durable. Raises OSError, and LogFileChanged where a file of the log was moved or
        changed.
        """
        self._check.look()
        self._opened().append(records)

    def due(self) -> float | None:
        return min(self._check.due(), self._opened().due())

    def idle(self) -> None:
        """Does the ledger's idle work. Raises SinkFailed where a file of the log was moved or changed."""
        try:
            self._check.look()
            self._opened().idle()
        except LogFileChanged as error:
            raise SinkFailed(error.strerror) from error
        except OSError as error:  # the next record tries again
            _log.error("audit log: no new segment", extra={"why": error.strerror})

    def close(self) -> None:
        if self._ledger is None:
            return
        try:
            self._ledger.close()
        except OSError as error:
            _log.error("audit log not closed in order", extra={"why": error.strerror})

    def _opened(self) -> Ledger:
        assert self._ledger is not None, "opened before"  # noqa: S101 - the thread's order
        return self._ledger
