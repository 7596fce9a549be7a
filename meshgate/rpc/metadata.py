"""The names of the gRPC metadata that Meshgate reads and writes.

Callers send `authorization` alone. The others travel between the gateway and a service; each believes them because
mutual TLS proves who sent them. The gateway makes its own metadata for a service and relays none of the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

from meshgate.errors import InvalidArgument

AUTHORIZATION: Final = "authorization"
REQUEST_ID: Final = "x-meshgate-request-id"
TENANT: Final = "x-meshgate-tenant"
SUBJECT: Final = "x-meshgate-subject-bin"
"""The caller's `sub` in UTF-8. An envelope that a service opens was sealed for this caller alone; and a tenant's
subjects take turns where texts are read."""
MODEL: Final = "x-meshgate-model-bin"
"""The model's own name, in UTF-8, that the gateway resolved and authorised. It stands in place of the request's, which
may be an alias, that a service could by now resolve to another model, or nothing.
"""
TOKEN_CAP: Final = "x-meshgate-token-cap"  # noqa: S105 - a name, not a secret
"""The most tokens, input and output of all candidates together, that a call may take."""
USAGE: Final = "x-meshgate-usage"
"""The usage of a call, in a service's trailers: `input,output` tokens."""
REMAINING_REQUESTS: Final = "x-meshgate-remaining-requests"
"""How many more requests its caller could have made, in the trailers of a successful call."""
REMAINING_TOKENS: Final = "x-meshgate-remaining-tokens"
"""How many more tokens its caller could have used, after the call's unused tokens were returned."""

Metadata = Iterable[tuple[str, str | bytes]]


class Usage(NamedTuple):
    """Tokens taken by a call."""

    input_tokens: int
    output_tokens: int


class Trailing(Protocol):
    """The part of a servicer context that takes trailers."""

    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


def report_usage(context: Trailing, input_tokens: int, output_tokens: int = 0) -> None:
    """Puts what a call took into its trailers, where the gateway reads it without parsing the reply."""
    context.set_trailing_metadata(((USAGE, f"{input_tokens},{output_tokens}"),))


def usage_of(trailers: Metadata | None) -> Usage:
    """The usage that a service reported; zero if the report is missing or malformed."""
    for key, value in trailers or ():
        if key == USAGE and isinstance(value, str):
            made, _, output = value.partition(",")
            if made.isdecimal() and output.isdecimal():
                return Usage(int(made), int(output))
    return Usage(0, 0)


def subject_of(value: str | bytes) -> str:
    """The subject that the gateway vouches for; empty, which no caller has, for a value that cannot be one."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def token_cap_of(sent: Metadata | None) -> int | None:
    """The cap that the gateway reserved. Raises InvalidArgument for a value that is not a number."""
    for key, value in sent or ():
        if key == TOKEN_CAP:
            if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
                return int(value)
            raise InvalidArgument.of(TOKEN_CAP, "a number of tokens is required")
    return None
