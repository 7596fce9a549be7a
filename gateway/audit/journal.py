"""The audit stage: every call that begins leaves a record of how it ended, before its caller has the outcome.

A call that the pipeline admits leaves one more record at that moment, so that a crash in the middle leaves a trace.
Where replies stream, none of them reaches the caller before that record is durable. A single reply waits for the last
record, which is behind the first one in the same queue. Refusals beyond a rate share one record: see
gateway.audit.refusal_aggregator.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from gateway import stages
from gateway.audit import UNAVAILABLE, AuditLog, AuditRecord
from gateway.audit.record import CallEvent, Decision
from gateway.audit.refusal_aggregator import RefusalAggregator, Refused, unauthenticated
from gateway.call import Call
from gateway.metrics import outcome
from gateway.metrics.call_metrics import CallMetrics
from gateway.metrics.outcome import Outcome
from meshgate import errors

_SUM_SECONDS: Final = 1.0
_UNWAITED: Final = frozenset({outcome.CANCELLED, outcome.Outcome("UNAVAILABLE", UNAVAILABLE)})


class Journal:
    """Writes the records of calls and reports the same outcomes to the metrics."""

    def __init__(self, log: AuditLog, refusals: RefusalAggregator, telemetry: CallMetrics) -> None:
        self._log = log
        self._refusals = refusals
        self._telemetry = telemetry
        self._summing: asyncio.TimerHandle | None = None

    def began(self, call: Call) -> None:
        """Counts a call that has arrived. `ended` or `failed` follows."""
        self._log.group_commit.in_flight += 1
        self._telemetry.began(call)

    async def ended(self, call: Call) -> None:
        """Commits the last record of a call that was served.

        Raises Unavailable (AUDIT_UNAVAILABLE) where the record can't be written: the gateway gives no answer that it
        can't account for. Raises DeadlineExceeded where the answer comes too late; the record says so.
        """
        if not call.over:
            await self._commit(call, outcome.OK)
            return
        await self._commit(call, outcome.DEADLINE_EXCEEDED)
        raise errors.DeadlineExceeded("the deadline passed")

    async def failed(self, call: Call, error: BaseException) -> None:
        """Commits the last record of a call that `error` ended.

        Raises Unavailable instead of `error`, as `ended` does. Raises DeadlineExceeded where the caller's deadline has
        passed: gRPC reports that status to the caller in any case. The record has that status, and the error's reason.
        """
        found = outcome.of(error)
        late = found is not outcome.CANCELLED and call.over
        ended = _cancelled(call) if found is outcome.CANCELLED else _reported(found, late=late)
        await self._close(call, found, ended)
        if late:
            raise errors.DeadlineExceeded("the deadline passed") from error

    async def _close(self, call: Call, found: Outcome, ended: Outcome) -> None:
        if not call.admitted and not self._refusals.record_singly(_refused(call), ended.reason):
            self._done(call, ended)
            self._schedule_sums()
        elif found in _UNWAITED or (call.principal is None and not call.inside):
            # The caller has left, or holds no slot, or already has AUDIT_UNAVAILABLE as its error: no caller waits.
            self._log.enqueue_nowait(_last(call, ended))
            self._done(call, ended)
        else:
            await self._commit(call, ended)

    async def _commit(self, call: Call, ended: Outcome) -> None:
        try:
            await self._log.commit(_last(call, ended))
        except asyncio.CancelledError:
            raise  # the record is queued, and is written although no caller waits
        except BaseException as error:
            ended = outcome.of(error)
            raise
        finally:
            self._done(call, ended)

    def _done(self, call: Call, ended: Outcome) -> None:
        self._log.group_commit.in_flight -= 1
        self._telemetry.ended(call, ended)

    def stop(self) -> None:
        """Writes the records of refusals that are still being counted. Call it before the log's own `stop`."""
        if self._summing is not None:
            self._summing.cancel()
            self._log_sums()

    def _schedule_sums(self) -> None:
        if self._summing is None:
            self._summing = asyncio.get_running_loop().call_later(_SUM_SECONDS, self._log_sums)

    def _log_sums(self) -> None:
        self._summing = None
        for summed in self._refusals.drain():
            caller = {name: value for name, value in summed.caller._asdict().items() if value}
            self._log.log_event(
                event="refusals",
                time=summed.last,
                first=summed.first,
                count=summed.count,
                reason=summed.reason,
                decision="deny",
                **caller,
            )

    def admitted(self, call: Call, *, streams: bool) -> Callable[[], Awaitable[None]] | None:
        """Records that a call was admitted, without waiting. The pipeline awaits the result before the first reply of a
        call whose replies stream. The result raises Unavailable (AUDIT_UNAVAILABLE).
        """
        call.admitted = True
        call.hmacs = self._log.content_hmacs()
        record = _record(call, "admitted", decision="allow")
        if streams:
            return partial(self._log.wait_durable, self._log.enqueue(record))
        self._log.enqueue_nowait(record)
        return None


def _cancelled(call: Call) -> Outcome:
    """The reason of a cancelled call: gRPC and the gateway itself cancel calls as a caller does."""
    if call.drained:
        return outcome.DRAINING
    return outcome.DEADLINE_EXCEEDED if call.late else outcome.CANCELLED


def _reported(found: Outcome, *, late: bool) -> Outcome:
    """The outcome that the caller of a failed call gets, with the reason of the failure."""
    return found._replace(code=outcome.DEADLINE_EXCEEDED.code) if late else found


def _refused(call: Call) -> Refused:
    principal = call.principal
    return (
        unauthenticated(call.peer) if principal is None else Refused(tenant=principal.tenant, subject=principal.subject)
    )


def _last(call: Call, ended: Outcome) -> AuditRecord:
    call.mark(stages.END)
    if call.admitted:
        return _record(call, "ended", decision="allow", reason=ended.reason, status=ended.code)
    return _record(call, "refused", decision="deny", reason=ended.reason, status=ended.code)


def _record(call: Call, event: CallEvent, *, decision: Decision, reason: str = "", status: str = "") -> AuditRecord:
    principal, hmacs = call.principal, call.hmacs if status else None
    return {
        "time": time.time_ns() // 1000,
        "request_id": call.request_id,
        "event": event,
        "decision": decision,
        "reason": reason,
        "status": status,
        "tenant": principal.tenant if principal else "",
        "subject": principal.subject if principal else "",
        "token_id": principal.token_id_hash if principal else "",
        "issuer": principal.issuer if principal else "",
        "peer": call.peer,
        "method": call.method,
        "target": call.target if call.target != call.method else "",
        "model": call.model,
        "sealing_key_id": call.sealing_key_id,
        "limits": call.limits,
        "stages_us": call.stages if status else {},
        "bytes_in": call.bytes_in,
        "bytes_out": call.bytes_out,
        "tokens_reserved": call.tokens_reserved,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "request_hmac": hmacs.request.hexdigest() if hmacs else "",
        "reply_hmac": hmacs.reply.hexdigest() if hmacs else "",
        "hmac_key_id": hmacs.key_id if hmacs else "",
    }
