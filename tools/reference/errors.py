"""The reference of error reasons, made from the table in meshgate/reasons.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshgate import errors, reasons
from meshgate.rpc import status
from tools.reference.markdown import Pages, code, page, prose, table

_HEAD: Final = """\
Every error is a gRPC status with `google.rpc.ErrorInfo` in its details: `reason` is a word from this page, `domain` is
`meshgate`, and `metadata["request_id"]` names the call in logs and in the audit log. Test for the reason, never for the
message. InvalidArgument adds `BadRequest`, which names each wrong field. LimitExceeded adds `QuotaFailure`. `RetryInfo`
has the time after which a retry can succeed.

"Retry: later" means after the time in RetryInfo, else with exponential back-off. The SDK retries UNAVAILABLE by
itself, and SEAL_KEY_UNKNOWN once. In Python, `client.explain(error).reason` is the reason."""


def pages() -> Pages:
    """One page: an index, then each reason under its topic."""
    index = table(["reason", "code", "retry"], (_indexed(reason) for reason in sorted(reasons.REASONS.values())))
    topics = [part for topic in reasons.TOPICS for part in (f"## {topic.title}", *map(_entry, topic.reasons))]
    return {"reasons.md": page("Error reasons", _HEAD, *topics, "## All reasons", index)}


def _indexed(reason: reasons.Reason) -> list[str]:
    return [f"[{reason.name}](#{reason.name.lower()})", _codes(reason.kinds), reason.retry.value]


def _entry(reason: reasons.Reason) -> str:
    senders = ", ".join(reason.senders) or "gRPC and any part"
    facts = f"{_codes(reason.kinds)} · from: {senders} · retry: {reason.retry.value}"
    return f"### {reason.name}\n\n{facts}\n\n{prose(reason.meaning)}\n{prose(reason.remedy)}"


def _codes(kinds: Iterable[type[errors.MeshError]]) -> str:
    return ", ".join(code(status.grpc_code(kind("")).name) for kind in kinds)
