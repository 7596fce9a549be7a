"""Secrets in every form in which one could be written."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

_LEAST: Final = 8
"""Bytes; what is shorter could be anywhere by chance."""


def forms(secret: bytes) -> set[bytes]:
    """As it is, in hex, and in base64 of both alphabets wherever in the encoded text it begins."""
    encoded = {form for skipped in range(3) for form in _base64(secret, skipped)}
    return {secret, secret.hex().encode(), secret.hex().upper().encode(), *encoded}


def _base64(secret: bytes, skipped: int) -> Iterator[bytes]:
    """What base64 has of the secret where so many bytes stand before it: letters that hold bits of it alone."""
    whole = len(secret) + skipped
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(bytes(skipped) + secret)[(0, 2, 3)[skipped] : whole * 8 // 6]


def private(home: Path) -> set[bytes]:
    """What is in the files under `home` that only their owner reads, the audit log's own aside."""
    found: set[bytes] = set()
    for folder in ("keys", "certs"):
        for path in (home / folder).rglob("*"):
            if path.is_file() and path.stat().st_mode & 0o077 == 0:
                found |= {form for secret in _secrets(path.read_bytes()) for form in forms(secret)}
    return found


def _secrets(content: bytes) -> Iterator[bytes]:
    if content.startswith(b"-----"):
        yield from _of_pem(content)
        return
    try:
        value = json.loads(content)
    except ValueError:  # random bytes, of which some begin as JSON does
        yield content
    else:
        yield from _of_json(value)


def _of_pem(content: bytes) -> Iterator[bytes]:
    yield from (line for line in content.splitlines() if len(line) >= _LEAST and b"---" not in line)
    key: Any = load_pem_private_key(content, None)
    yield key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        yield key.private_numbers().private_value.to_bytes(key.key_size // 8)
    else:
        yield key.private_bytes_raw()


def _of_json(value: Any) -> Iterator[bytes]:
    """Every text in it, and what that is hex of."""
    if isinstance(value, dict):
        for member in value.values():
            yield from _of_json(member)
    elif isinstance(value, str) and len(value) >= _LEAST:
        yield value.encode()
        yield bytes.fromhex(value)
