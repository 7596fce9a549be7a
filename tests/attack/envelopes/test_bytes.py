"""Hostile bytes: an envelope or a segment that differs in any byte from what was sealed does not open."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate import errors
from meshgate.sealing import codec
from meshgate.sealing.codec import SUITES, X25519, RecipientKey
from meshgate.v1.sealed_pb2 import Envelope, EnvelopeHeader, Segment

NOW_MS = 1_800_000_000_000
METHOD = "/meshgate.v1.GenerationService/Generate"
KEYS = {suite: RecipientKey.generate(suite) for suite in SUITES}
REASONS = {"SEAL_INVALID", "SEAL_KEY_UNKNOWN", "SEAL_EXPIRED"}


def seal(suite: codec.Suite = X25519, message: bytes = b"secret") -> tuple[Envelope, codec.SenderSession]:
    return codec.seal_request(KEYS[suite].public, message, method=METHOD, tenant="acme", subject="alice", now_ms=NOW_MS)


def refused(envelope: Envelope, suite: codec.Suite = X25519, **changes: Any) -> errors.InvalidArgument:
    """The error that opening ends with. `find` is generous: it gives the key whatever its id."""
    given: dict[str, Any] = {"tenant": "acme", "subject": "alice", "now_ms": NOW_MS, "window_ms": 1000, **changes}
    with pytest.raises(errors.InvalidArgument) as caught:
        codec.open_envelope(lambda _: KEYS[suite], envelope, **given)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def flips(data: bytes) -> Iterator[bytes]:
    """`data` with each byte changed once."""
    chosen = random.Random(7)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= chosen.randrange(1, 256)
        yield bytes(changed)


@pytest.mark.parametrize("suite", SUITES)
def test_every_byte_of_the_ciphertext_counts(suite: codec.Suite) -> None:
    envelope, _ = seal(suite)
    for changed in flips(envelope.ciphertext):
        error = refused(Envelope(header=envelope.header, ciphertext=changed), suite)
        assert (error.reason, error.violations) == ("SEAL_INVALID", ())


@pytest.mark.parametrize("suite", SUITES)
def test_every_byte_of_the_header_counts(suite: codec.Suite) -> None:
    envelope, _ = seal(suite)
    for changed in flips(envelope.header):
        assert refused(Envelope(header=changed, ciphertext=envelope.ciphertext), suite).reason in REASONS


def test_a_header_that_reads_the_same_but_is_written_otherwise_does_not_open() -> None:
    """protobuf lets one message be written in many ways; what is authenticated is the bytes."""
    envelope, _ = seal()
    same = envelope.header + EnvelopeHeader(tenant="acme").SerializeToString()
    assert EnvelopeHeader.FromString(same) == EnvelopeHeader.FromString(envelope.header)
    assert refused(Envelope(header=same, ciphertext=envelope.ciphertext)).reason == "SEAL_INVALID"


@pytest.mark.parametrize("suite", SUITES)
@given(garbage=st.binary(max_size=2000))
def test_garbage_does_not_open(suite: codec.Suite, garbage: bytes) -> None:
    envelope, _ = seal(suite)
    assert refused(Envelope(header=envelope.header, ciphertext=garbage), suite).reason == "SEAL_INVALID"
    assert refused(Envelope(header=garbage, ciphertext=envelope.ciphertext), suite).reason in REASONS


@pytest.mark.parametrize("cut", [0, 1, 16, 31, 32, 33, 48, -1])
def test_a_part_of_an_envelope_does_not_open(cut: int) -> None:
    envelope, _ = seal()
    assert refused(Envelope(header=envelope.header, ciphertext=envelope.ciphertext[:cut])).reason == "SEAL_INVALID"


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 19).to_bytes(32, "little")])
def test_a_point_of_small_order_does_not_open(point: bytes) -> None:
    """X25519 with such a point gives a shared secret that everybody knows (RFC 7748, section 6.1)."""
    envelope, _ = seal()
    assert refused(Envelope(header=envelope.header, ciphertext=point + envelope.ciphertext[32:])).reason == (
        "SEAL_INVALID"
    )
    with pytest.raises(ValueError, match=r".*"):
        codec.seal_request(codec.PublicKey(X25519, point), b"", method=METHOD, tenant="t", subject="s", now_ms=NOW_MS)


def test_every_byte_of_a_segment_counts() -> None:
    envelope, sender = seal()
    segment = _recipient(envelope).seal_response(b"reply")
    for changed in flips(segment.ciphertext):
        fresh = codec.SenderSession(*_secrets(sender))
        with pytest.raises(errors.InvalidArgument) as caught:
            fresh.open_response(Segment(ciphertext=changed, last=segment.last))
        assert caught.value.reason == "SEAL_INVALID"
    assert sender.open_response(segment) == b"reply"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17])
def test_a_part_of_a_segment_does_not_open(length: int) -> None:
    envelope, sender = seal()
    segment = _recipient(envelope).seal_response(b"reply", last=True)
    with pytest.raises(errors.InvalidArgument):
        sender.open_response(Segment(ciphertext=segment.ciphertext[:length], last=True))


def _recipient(envelope: Envelope) -> codec.RecipientSession:
    return codec.open_envelope(
        lambda _: KEYS[X25519], envelope, tenant="acme", subject="alice", now_ms=NOW_MS, window_ms=1
    ).session


def _secrets(session: codec.SenderSession) -> tuple[bytes, bytes]:
    return session._reply_key, session._header
