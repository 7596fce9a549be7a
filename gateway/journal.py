"""The audit stage: every call that begins leaves a record of how it ended, before its caller hears of it.

A call that the pipeline admits leaves one more at that moment, so that a crash in the middle leaves its trace.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from gateway.audit import AuditLog, AuditRecord
from gateway.call import Call
from meshgate import errors
from meshgate.runtime import status

_log = logging.getLogger(__name__)

_DRAIN_SECONDS: Final = 10.0
_OK: Final = "OK"


class Journal:
    """Writes the records of calls."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._pending: set[asyncio.Future[None]] = set()

    async def ended(self, call: Call) -> None:
        """Commits the last record of a call that was served.

        Raises Unavailable (AUDIT_UNAVAILABLE) where it can't be written: an answer that nobody could account for is
        not given.
        """
        await self._log.commit(self._ended(call, _OK, ""))

    async def failed(self, call: Call, error: BaseException) -> None:
        """Commits the last record of a call that `error` ended. Raises Unavailable as `ended` does, in its place."""
        if isinstance(error, errors.MeshError):
            await self._log.commit(self._ended(call, status.grpc_code(error).name, error.reason))
        elif isinstance(error, TimeoutError):
            await self._log.commit(self._ended(call, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"))
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._leave(self._ended(call, "CANCELLED", "CANCELLED"))
        else:
            await self._log.commit(self._ended(call, "INTERNAL", "INTERNAL"))

    def admitted(self, call: Call) -> None:
        """Records that a call may go on, without waiting: its last record comes later in the same order."""
        call.admitted = True
        self._leave(_record(call, "admitted", decision="allow"))

    async def drain(self) -> None:
        """Waits, within bounds, for records that nobody waits for."""
        if self._pending:
            await asyncio.wait(self._pending, timeout=_DRAIN_SECONDS)

    def _ended(self, call: Call, code: str, reason: str) -> AuditRecord:
        call.mark("end")
        event, decision = ("ended", "allow") if call.admitted else ("refused", "deny")
        return _record(call, event, decision=decision, reason=reason, status=code)

    def _leave(self, record: AuditRecord) -> None:
        """Submits a record that nobody waits for. Order is the queue's."""
        try:
            written = self._log.submit(record)
        except errors.Unavailable:
            _log.error("an audit record could not be written")
            return
        self._pending.add(written)
        written.add_done_callback(self._left)

    def _left(self, written: asyncio.Future[None]) -> None:
        self._pending.discard(written)
        if not written.cancelled() and written.exception() is not None:
            _log.error("an audit record could not be written")


def _record(call: Call, event: str, *, decision: str, reason: str = "", status: str = "") -> AuditRecord:
    principal = call.principal
    return AuditRecord(
        time=time.time_ns() // 1000,
        request_id=call.request_id,
        event=event,
        decision=decision,
        reason=reason,
        status=status,
        tenant=principal.tenant if principal else "",
        subject=principal.subject if principal else "",
        token_id=principal.token_id_hash if principal else "",
        issuer=principal.issuer if principal else "",
        peer=call.peer,
        method=call.method,
        target=call.target if call.target != call.method else "",
        model=call.model,
        sealing_key_id=call.sealing_key_id,
        stages_us=dict(call.stages),
        bytes_in=call.bytes_in,
        bytes_out=call.bytes_out,
        tokens_reserved=call.tokens_reserved,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
    )
