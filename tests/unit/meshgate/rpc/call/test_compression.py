"""A message that cannot be read is refused, and one that is compressed is told so."""

from __future__ import annotations

import gzip
import zlib

import pytest
from google.protobuf.message import DecodeError

from meshgate import errors
from meshgate.rpc.call import compression
from meshgate.v1 import generation_pb2

_LEVELS = range(10)


@pytest.mark.parametrize(
    "message", [gzip.compress(b"x" * 99, mtime=0), *(zlib.compress(b"x" * 99, level) for level in _LEVELS)]
)
def test_a_compressed_message_is_named(message: bytes) -> None:
    error = compression.unreadable(message)
    assert (type(error), error.reason) == (errors.Unimplemented, "COMPRESSED")


@pytest.mark.parametrize("message", [b"", b"\x78", b"\xff\xff", b"\x1f", b"\x78\x00", b"\x0a\xff"])
def test_any_other_is_malformed(message: bytes) -> None:
    error = compression.unreadable(message)
    assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")


def test_gzip_is_never_valid_protobuf() -> None:
    for tail in (b"", b"\x00", b"\x08\x00" * 20):
        with pytest.raises(DecodeError):
            generation_pb2.GenerateRequest.FromString(b"\x1f\x8b" + tail)
