"""Compressed messages, which no port of Meshgate inflates.

gRPC would inflate a message before any of our code runs, for anyone who can open a connection: 16 KB of gzip become
16 MiB. Every server therefore switches decompression off and receives the bytes as they were sent. They are then read
like any message: after authentication, within the limits. gzip is never valid protobuf (its first byte is a wire type
that does not exist), so the message is refused, and the error says why.
"""

from __future__ import annotations

from typing import Any, Final

from meshgate import errors

OFF: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.per_message_compression", 0),
    ("grpc.per_message_decompression", 0),
)
"""Channel options of both sides: sealed payloads and vectors do not shrink, and the rest is short."""

_GZIP: Final = b"\x1f\x8b"
_ZLIB_METHOD: Final = 0x78
"""The first byte of zlib's format with a window of 32 KiB (RFC 1950 section 2.2). gRPC calls that format deflate."""
_ZLIB_CHECK: Final = 31


def unreadable(message: bytes) -> errors.MeshError:
    """The error for a message that is not valid protobuf. A compressed one is Unimplemented (COMPRESSED)."""
    if is_compressed(message):
        return errors.Unimplemented("messages must not be compressed: send this one as it is", reason="COMPRESSED")
    return errors.InvalidArgument("the message is not valid protobuf", reason="MALFORMED")


def is_compressed(message: bytes) -> bool:
    """Whether a message begins as gzip or zlib data does. Ask only for messages that are not valid protobuf."""
    head = int.from_bytes(message[:2])
    zlib = len(message) > 1 and message[0] == _ZLIB_METHOD and head % _ZLIB_CHECK == 0
    return zlib or message.startswith(_GZIP)
