"""The audit stage: every call that begins leaves a record of how it ended, before its caller hears of it.

A call that the pipeline admits leaves one more at that moment, so that a crash in the middle leaves its trace.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from gateway.audit import AuditLog, AuditRecord
from gateway.call import Call
from meshgate import errors
from meshgate.runtime import status

_OK: Final = "OK"


class Journal:
    """Writes the records of calls."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

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
            self._log.leave(self._ended(call, "CANCELLED", "CANCELLED"))
        else:
            await self._log.commit(self._ended(call, "INTERNAL", "INTERNAL"))

    def admitted(self, call: Call) -> None:
        """Records that a call may go on, without waiting: its last record comes later in the same order."""
        call.admitted = True
        call.macs = self._log.content_macs()
        self._log.leave(_record(call, "admitted", decision="allow"))

    def _ended(self, call: Call, code: str, reason: str) -> AuditRecord:
        call.mark("end")
        event, decision = ("ended", "allow") if call.admitted else ("refused", "deny")
        return _record(call, event, decision=decision, reason=reason, status=code)


def _record(call: Call, event: str, *, decision: str, reason: str = "", status: str = "") -> AuditRecord:
    principal = call.principal
    macs = call.macs if status else None
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
        limits=call.limits,
        stages_us=call.stages if status else {},
        bytes_in=call.bytes_in,
        bytes_out=call.bytes_out,
        tokens_reserved=call.tokens_reserved,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        request_hmac=macs.request.hexdigest() if macs else "",
        reply_hmac=macs.reply.hexdigest() if macs else "",
        hmac_key_id=macs.key_id if macs else "",
    )
