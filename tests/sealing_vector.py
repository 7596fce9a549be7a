"""Writes tests/data/sealing_vector.json anew: `python -m tests.sealing_vector`. The keys in it are for tests alone.

HPKE draws its own randomness, so a vector is for opening: what is in the file was sealed once and has to open for ever.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from meshgate.sealing import codec
from meshgate.v1.sealed_pb2 import SealingSuite

PATH: Final = Path(__file__).parent / "data" / "sealing_vector.json"
NOW_MS: Final = 1_800_000_000_000
TENANT: Final = "acme"
SUBJECT: Final = "alice"


def vector(suite: codec.Suite) -> dict[str, Any]:
    """One call: its envelope, two request segments and two responses. Bytes are in hexadecimal."""
    secret = bytes(range(96 if suite == codec.MLKEM768_X25519 else 32))
    key = codec.RecipientKey(suite, secret)
    message = b"the first request"
    envelope, sender = codec.seal_request(
        key.public,
        message,
        method="/meshgate.v1.EmbeddingService/EmbedStream",
        model="all-minilm-l6-v2",
        tenant=TENANT,
        subject=SUBJECT,
        now_ms=NOW_MS,
    )
    recipient = codec.RecipientSession(sender._reply_key, envelope.header)
    requests = [sender.seal_request(b"the second request"), sender.seal_request(None, last=True)]
    responses = [recipient.seal_response(b"a response"), recipient.seal_response(b"", last=True)]
    return {
        "suite": SealingSuite.Name(suite),
        "secret": secret.hex(),
        "public_key": key.public.data.hex(),
        "fingerprint": key.public.fingerprint.hex(),
        "key_id": key.public.key_id,
        "header": envelope.header.hex(),
        "ciphertext": envelope.ciphertext.hex(),
        "reply_key": sender._reply_key.hex(),
        "message": message.hex(),
        "requests": [
            _segment(item, plain) for item, plain in zip(requests, (b"the second request", None), strict=True)
        ],
        "responses": [_segment(item, plain) for item, plain in zip(responses, (b"a response", b""), strict=True)],
    }


def _segment(segment: Any, message: bytes | None) -> dict[str, Any]:
    return {
        "ciphertext": segment.ciphertext.hex(),
        "last": segment.last,
        "message": None if message is None else message.hex(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps([vector(suite) for suite in codec.SUITES], indent=1) + "\n")
