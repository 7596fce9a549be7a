"""What a record says, and its one encoding.

Canonical JSON as in RFC 8785: names sorted, no white space, UTF-8, only what must be escaped is. Values are strings,
integers below 2^53 and objects of integers alone, and names are ASCII, so that the RFC's rules for fractions and for
sorting by UTF-16 never apply. A field that is empty or zero is left out.

`canonical` is the definition and takes any record; `encode` makes the same bytes of a call's record several times
faster, because it is done twice a call: the names are in order beforehand, and what calls have in common (who, which
method, which stages) is kept encoded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


_KEPT: Final = 1024
"""How many combinations of what calls have in common are kept encoded."""


class AuditRecord(NamedTuple):
    """One event of one call. A tuple, because of all immutable things it is the cheapest to make and to read."""

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
    limits: str = ""
    """How the limits were decided, where not as they should be: `local` while the store was down."""
    stages_us: Mapping[str, int] = MappingProxyType({})
    """Stage to microseconds."""
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_reserved: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    request_hmac: str = ""
    """ContentHmac.hexdigest() of the request messages."""
    reply_hmac: str = ""
    """The same of the reply messages."""
    hmac_key_id: str = ""
    """Which key both were made with."""


def encode(record: AuditRecord) -> bytes:
    """The canonical bytes of a call's record. Raises TypeError or ValueError for a value of another type."""
    quoted = encode_basestring
    # fmt: off
    (time, request_id, event, decision, reason, status, tenant, subject, token_id, issuer, peer, method, target, model,
     sealing_key_id, limits, stages_us, bytes_in, bytes_out, tokens_reserved, input_tokens, output_tokens,
     request_hmac, reply_hmac, hmac_key_id) = record  # at once: name by name is a fifth of all
    # fmt: on
    pieces = (  # written out, because calls are what it would cost
        f'"bytes_in":{bytes_in:d},' if bytes_in else "",
        f'"bytes_out":{bytes_out:d},' if bytes_out else "",
        _outcome(decision, event, hmac_key_id),
        f'"input_tokens":{input_tokens:d},' if input_tokens else "",
        _work(issuer, limits, method, model),
        f'"output_tokens":{output_tokens:d},' if output_tokens else "",
        f'"peer":{quoted(peer)},' if peer else "",
        f'"reason":{quoted(reason)},' if reason else "",
        f'"reply_hmac":{quoted(reply_hmac)},' if reply_hmac else "",
        f'"request_hmac":{quoted(request_hmac)},' if request_hmac else "",
        f'"request_id":{quoted(request_id)},' if request_id else "",
        f'"sealing_key_id":{quoted(sealing_key_id)},' if sealing_key_id else "",
        _stages(stages_us) if stages_us else "",
        _caller(status, subject, target, tenant),
        f'"time":{time:d},' if time else "",
        f'"token_id":{quoted(token_id)},' if token_id else "",
        f'"tokens_reserved":{tokens_reserved:d},' if tokens_reserved else "",
    )
    line = "".join(pieces)
    return f"{{{line[:-1]}}}".encode("utf-8", "backslashreplace")


def canonical(record: Mapping[str, Any]) -> bytes:
    """The canonical bytes of any record of strings, integers and objects of them. Raises TypeError for others.

    A lone surrogate, which UTF-8 can't hold, stays as its escape.
    """
    return _encode(record).encode("utf-8", "backslashreplace")


def _text(name: str, value: str) -> str:
    return f'"{name}":{encode_basestring(value)},' if value else ""


@lru_cache(_KEPT)
def _outcome(decision: str, event: str, hmac_key_id: str) -> str:
    return _text("decision", decision) + _text("event", event) + _text("hmac_key_id", hmac_key_id)


@lru_cache(_KEPT)
def _work(issuer: str, limits: str, method: str, model: str) -> str:
    return _text("issuer", issuer) + _text("limits", limits) + _text("method", method) + _text("model", model)


@lru_cache(_KEPT)
def _caller(status: str, subject: str, target: str, tenant: str) -> str:
    return _text("status", status) + _text("subject", subject) + _text("target", target) + _text("tenant", tenant)


def _stages(stages: Mapping[str, int]) -> str:
    ordered, template = _layout(tuple(stages))
    made: str = template % ordered(stages)
    return made


@lru_cache(_KEPT)
def _layout(names: tuple[str, ...]) -> tuple[Callable[[Mapping[str, int]], Any], str]:
    """What gives the numbers in the order of their names, and the text around them."""
    ordered = sorted(names)
    members = ",".join(encode_basestring(name).replace("%", "%%") + ":%d" for name in ordered)
    return itemgetter(*ordered), f'"stages_us":{{{members}}},'
