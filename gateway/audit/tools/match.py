"""Whether a text is the one that was sent or answered: its HMAC is computed again and compared with the record's."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.keys.content_hmac import ContentHmac, Direction, find_key
from gateway.audit.tools.search import UNREADABLE, Query, search


@dataclass(frozen=True, slots=True)
class ContentDigests:
    """The HMACs in a call's last record."""

    method: str
    """The method that did the work."""
    key_id: str
    request: str
    reply: str


class KeyMissing(ValueError):
    """The key of a call's HMACs is missing; the text is its id."""


def digests_of(root: Path, request_id: str) -> ContentDigests | None:
    """The HMACs of the call with that id, or None where no record has them. Raises OSError, and ValueError for a log
    with lines that are not spelled as the gateway writes them.
    """
    query = Query(fields={"request_id": request_id})
    for record in search(root, query, newest_first=True):
        if record is UNREADABLE:
            raise ValueError(
                "the log has lines that the gateway did not write; `meshgate audit verify` names the first"
            )
        if key_id := str(record.get("hmac_key_id", "")):
            method = str(record.get("target") or record.get("method", ""))
            return ContentDigests(
                method, key_id, str(record.get("request_hmac", "")), str(record.get("reply_hmac", ""))
            )
    return None


def matches(keys: Path, found: ContentDigests, direction: Direction, messages: Sequence[bytes]) -> bool:
    """Whether exactly `messages` went in that direction. Raises OSError, KeyMissing, ValueError for a file that is not
    a key.
    """
    key = find_key(keys, found.key_id)
    if key is None:
        raise KeyMissing(found.key_id)
    mac = ContentHmac(key, direction)
    for message in messages:
        mac.update(message)
    return hmac.compare_digest(mac.hexdigest(), found.request if direction == "request" else found.reply)
