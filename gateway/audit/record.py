"""The record of one event of one call: its schema and its encoding.

`AuditRecord` is the one schema. The encoder, the reader of a log (`chain/canonical.py`), the search (`tools/search.py`)
and the reference page take names and kinds of fields from it.

The encoding is canonical JSON (RFC 8785) of a subset: strings, integers below 2^53 and objects of integers. Names are
ASCII, so that the RFC's rules for fractions and for sorting by UTF-16 never apply. Names are sorted, there is no white
space, the text is UTF-8, and only the characters that JSON demands are escaped. An empty or zero field is left out.

`canonical` defines the encoding and takes any record. `encode` makes the same bytes of a call's record several times
faster, because the gateway encodes two records for each call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict, get_args, get_origin, get_type_hints

import orjson

CallEvent = Literal["admitted", "ended", "refused"]
"""The events of a call."""
Decision = Literal["allow", "deny"]


class AuditRecord(TypedDict, total=False):
    """One event of one call. A dict, because its display in the source names each field and costs no more to make."""

    time: int
    """Microseconds since the Unix epoch."""
    request_id: str
    """The id of the call, as its caller sees it."""
    event: CallEvent
    """`admitted` before the work, `ended` after it, or `refused` where there was no work."""
    decision: Decision
    """`allow` or `deny`."""
    reason: str
    """The UPPER_SNAKE reason of the error, if there was an error."""
    status: str
    """The name of the gRPC status code."""
    tenant: str
    """The caller's tenant, from its token."""
    subject: str
    """The caller, from the token's `sub`."""
    token_id: str
    """The first 16 hexadecimal digits of SHA-256 of the token's `jti`, or of the whole token where it has none."""
    issuer: str
    """The token's `iss`."""
    peer: str
    """The network address from which the call came, as gRPC writes it."""
    method: str
    """The method that the caller called."""
    target: str
    """The method that does the work, where it is another one: the method inside a sealed envelope."""
    model: str
    """The model's own name."""
    sealing_key_id: str
    """The key with which the caller sealed the request."""
    limits: str
    """How the limits were decided in an outage: `local` while the shared store was down."""
    stages_us: dict[str, int]
    """Microseconds for each stage of the call."""
    bytes_in: int
    """Bytes of request messages."""
    bytes_out: int
    """Bytes of reply messages."""
    tokens_reserved: int
    """Tokens that the limits reserved for the call."""
    input_tokens: int
    """Input tokens that the service reported."""
    output_tokens: int
    """Output tokens that the service reported."""
    request_hmac: str
    """HMAC-SHA256 over the request messages, in hexadecimal."""
    reply_hmac: str
    """HMAC-SHA256 over the reply messages, in hexadecimal."""
    hmac_key_id: str
    """The id of the key of both HMACs."""


def _kind(hint: Any) -> type:
    """The class of a field's values: str, int or dict."""
    origin = get_origin(hint)
    found: type = str if origin is Literal else origin or hint
    return found


KINDS: Final[Mapping[str, type]] = {name: _kind(hint) for name, hint in get_type_hints(AuditRecord).items()}
"""Each field's class of values, by the field's name."""
CALL_EVENTS: Final[tuple[str, ...]] = get_args(CallEvent)
DECISIONS: Final[tuple[str, ...]] = get_args(Decision)

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_ORDERED: Final = [(name, KINDS[name]) for name in sorted(KINDS)]
_INTEGERS: Final = frozenset({int})


def encode(record: AuditRecord) -> bytes:
    """The canonical bytes of a call's record. Raises TypeError for a value of another type than the schema's."""
    get: Callable[[str], Any] = record.get
    stated = {
        name: value
        for name, kind in _ORDERED
        if (value := get(name)) and (type(value) is kind or _is_a(value, kind, name))
    }
    if (stages := get("stages_us")) and not _INTEGERS.issuperset(map(type, stages.values())):
        raise TypeError("stages_us: integers are required")
    try:
        return orjson.dumps(stated, option=orjson.OPT_SORT_KEYS if stages else None)  # the fields are in order
    except TypeError:  # a lone surrogate, which UTF-8 can't hold
        return canonical(stated)


def canonical(record: Mapping[str, Any]) -> bytes:
    """The canonical bytes of any record of strings, integers and objects of them. Raises TypeError for other values.

    A lone surrogate, which UTF-8 can't hold, stays as its escape.
    """
    return _encode(record).encode("utf-8", "backslashreplace")


def _is_a(value: object, kind: type, name: str) -> bool:
    """True for a value of a subclass of `kind`. Raises TypeError for any other value."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name}: a value of another type than the schema's")
    return True
