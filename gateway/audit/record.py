"""What a record says, and its one encoding.

Canonical JSON as in RFC 8785: names sorted, no white space, UTF-8, only what must be escaped is. Values are strings,
integers and objects of integers alone, so that the RFC's rules for fractions never apply. A field that is empty or zero
is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One event of one call."""

    time: int
    """Microseconds since the Unix epoch."""
    request_id: str
    event: str
    """`admitted` before the work, `ended` after it, or `refused` where there was none."""
    decision: str = ""
    """`allow` or `deny`."""
    reason: str = ""
    """The UPPER_SNAKE reason of the error, if there was one."""
    status: str = ""
    """The gRPC status code's name."""
    tenant: str = ""
    subject: str = ""
    token_id: str = ""
    """Principal.token_id_hash."""
    issuer: str = ""
    peer: str = ""
    """The address the call came from."""
    method: str = ""
    """As called."""
    target: str = ""
    """The method that does the work, where it is another one: that inside an envelope."""
    model: str = ""
    sealing_key_id: str = ""
    stages_us: Mapping[str, int] = field(default_factory=dict)
    """Stage to microseconds."""
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_reserved: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    request_hmac: str = ""
    """ContentMac.hexdigest() of the request messages."""
    reply_hmac: str = ""
    """The same of the reply messages."""


_NAMES: Final = tuple(field.name for field in fields(AuditRecord))
_values = attrgetter(*_NAMES)


def encode(record: AuditRecord) -> bytes:
    """The canonical bytes of a call's record. Raises TypeError for a value of another type."""
    return canonical({name: value for name, value in zip(_NAMES, _values(record), strict=True) if value})


def canonical(record: Mapping[str, Any]) -> bytes:
    """The canonical bytes of any record of strings, integers and objects of them. Raises TypeError for others.

    A lone surrogate, which UTF-8 can't hold, stays as its escape.
    """
    return _encode(record).encode("utf-8", "backslashreplace")
