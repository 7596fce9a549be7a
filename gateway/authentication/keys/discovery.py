"""OpenID Connect Discovery 1.0: an issuer publishes the URL of its keys at a well-known place.

The gateway takes only that URL from the document, and only where the document names the very issuer that was asked
(section 4.3). The configuration decides on algorithms, audiences and tenants.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.authentication.keys.https_url import https
from gateway.authentication.source import SourceError

_PLACE: Final = "/.well-known/openid-configuration"
MAX_BYTES: Final = 64 * 1024
"""Bytes of the document; those of large providers have 3 KiB."""


def place(issuer: str) -> str:
    """The URL of an issuer's document. Raises ValueError where the issuer is not an https URL without query."""
    if "?" in issuer:
        raise ValueError("must be an https URL without query")
    return https(issuer).removesuffix("/") + _PLACE


def jwks_uri(document: bytes, issuer: str) -> str:
    """The URL of the keys. Raises SourceError, which repeats nothing of the document."""
    said = _object(document)
    if said.get("issuer") != issuer:
        raise SourceError("discovery: the document is of another issuer")
    try:
        return https(said["jwks_uri"])
    except (KeyError, TypeError, ValueError):
        raise SourceError("discovery: the document has no jwks_uri that is an https URL") from None


def _object(document: bytes) -> dict[str, Any]:
    try:
        said = json.loads(document, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise SourceError("discovery: the document is not a JSON object")
    return said


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique: of two issuers, parsers differ on the one that counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found
