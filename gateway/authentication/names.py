"""The rules for names of callers, tenants, tokens and scopes, in claims, revocation lists and configuration.

Two names that look alike must not be two callers. So a name is visible text in Unicode's normal form C. A claim is
refused where a revocation, a limit or an audit record could not have the same name.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Final, TypeGuard

from pydantic import AfterValidator, Field

TENANT: Final = r"^[A-Za-z0-9][!-~]{0,127}$"
"""A tenant's name: safe in metadata and in keys. For a full match."""
MAX_SUBJECT: Final = 256
"""Bytes of UTF-8 in a subject."""
MAX_TEXT: Final = 2048
"""Bytes of UTF-8 in an issuer, an audience or a token's id."""
EVERYONE: Final = "*"
"""In the policy's table of tenants: all tenants without an entry of their own."""

_TENANT: Final = re.compile(TENANT, re.ASCII)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}", re.ASCII)
"""A scope-token of RFC 6749, section 3.3."""
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
"""Characters that Unicode calls default-ignorable or shows as a blank, although Python calls them printable."""


def is_tenant(value: object) -> TypeGuard[str]:
    """Whether `value` may be a tenant's name."""
    return isinstance(value, str) and _TENANT.fullmatch(value) is not None


def is_scope(value: object) -> TypeGuard[str]:
    """Whether `value` is one scope-token."""
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None


def is_visible(value: object, most_bytes: int) -> TypeGuard[str]:
    """Whether `value` is text of 1 to `most_bytes` bytes without hidden characters, and in its only spelling."""
    if not isinstance(value, str) or not value or not value.isprintable():  # a lone surrogate is not printable
        return False
    spaced = value[0] == " " or value[-1] == " " or "  " in value
    marked = unicodedata.category(value[0]).startswith("M")  # it would join what stands before the name
    hidden = spaced or marked or _UNSEEN.search(value) is not None
    return not hidden and unicodedata.is_normalized("NFC", value) and len(value.encode()) <= most_bytes


def visible_rule(most_bytes: int) -> str:
    """The rule of `is_visible`, in words."""
    return f"visible text of 1 to {most_bytes} bytes, in Unicode's form NFC, with single spaces inside at most"


def _visible(value: str) -> str:
    if not is_visible(value, MAX_TEXT):
        raise ValueError(f"must be {visible_rule(MAX_TEXT)}")
    return value


def _subject(value: str) -> str:
    if not is_visible(value, MAX_SUBJECT):
        raise ValueError(f"must be {visible_rule(MAX_SUBJECT)}")
    return value


def _scope(value: str) -> str:
    if not is_scope(value):
        raise ValueError(f"{value!r} can't be a scope: 1 to 256 characters of ASCII without space, quote or backslash")
    return value


def _tenant(value: str) -> str:
    if not is_tenant(value):
        raise ValueError(
            f"{value!r} can't be a tenant: 1 to 128 characters of ASCII, a letter or digit first, no space"
        )
    return value


def _tenant_or_everyone(value: str) -> str:
    return value if value == EVERYONE else _tenant(value)


ModelName = Annotated[str, Field(min_length=1, max_length=128)]
VisibleText = Annotated[str, AfterValidator(_visible)]
Subject = Annotated[str, Field(min_length=1, max_length=MAX_SUBJECT), AfterValidator(_subject)]
TokenId = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_visible)]
ScopeName = Annotated[str, AfterValidator(_scope)]
TenantName = Annotated[str, AfterValidator(_tenant)]
TenantOrEveryone = Annotated[str, AfterValidator(_tenant_or_everyone)]
