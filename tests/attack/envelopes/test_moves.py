"""Good bytes in the wrong place: another principal, method, key, time or stream than the sender meant."""

from __future__ import annotations

from typing import Any

import pytest

from meshgate import errors
from meshgate.sealing import codec
from meshgate.sealing.codec import MLKEM768_X25519, X25519, RecipientKey
from meshgate.v1.sealed_pb2 import Envelope, EnvelopeHeader, Segment

NOW_MS = 1_800_000_000_000
WINDOW_MS = 1000
KEY = RecipientKey.generate(X25519)
OTHER_KEY = RecipientKey.generate(X25519)


def seal(**changes: Any) -> tuple[Envelope, codec.SenderSession]:
    fields: dict[str, Any] = {"method": "/a/B", "tenant": "acme", "subject": "alice", "now_ms": NOW_MS, **changes}
    return codec.seal_request(KEY.public, b"secret", **fields)


def open_(envelope: Envelope, key: RecipientKey | None = KEY, **changes: Any) -> codec.Opened:
    given: dict[str, Any] = {"tenant": "acme", "subject": "alice", "now_ms": NOW_MS, "window_ms": WINDOW_MS, **changes}
    return codec.open_envelope(lambda _: key, envelope, **given)


def refusal(envelope: Envelope, key: RecipientKey | None = KEY, **changes: Any) -> str:
    with pytest.raises(errors.InvalidArgument) as caught:
        open_(envelope, key, **changes)
    return caught.value.reason


def sessions() -> tuple[codec.SenderSession, codec.RecipientSession]:
    envelope, sender = seal()
    return sender, open_(envelope).session


def does_not_open(session: codec.SenderSession, segment: Segment) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        session.open_response(segment)
    assert caught.value.reason == "SEAL_INVALID"


@pytest.mark.parametrize("caller", [{"tenant": "evil"}, {"subject": "mallory"}, {"tenant": ""}, {"subject": ""}])
def test_another_principal_cannot_use_it(caller: dict[str, str]) -> None:
    assert refusal(seal()[0], KEY, **caller) == "SEAL_INVALID"


def test_tenant_and_subject_do_not_run_into_each_other() -> None:
    assert refusal(seal(tenant="ab", subject="c")[0], tenant="a", subject="bc") == "SEAL_INVALID"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "/a/C"},
        {"model": "larger"},
        {"token_cap": 2**31 - 1},
        {"sealed_at_unix_ms": NOW_MS + 1},
        {"request_id": bytes(16)},
        {"recipient": 2},
    ],
)
def test_a_body_opens_under_its_own_header_alone(change: dict[str, Any]) -> None:
    envelope, _ = seal(model="small", token_cap=10)
    header = EnvelopeHeader.FromString(envelope.header)
    for name, value in change.items():
        setattr(header, name, value)
    moved = Envelope(header=header.SerializeToString(), ciphertext=envelope.ciphertext)
    assert refusal(moved) == "SEAL_INVALID"


def test_a_body_does_not_open_under_the_header_of_another() -> None:
    first, second = seal()[0], seal()[0]
    assert refusal(Envelope(header=first.header, ciphertext=second.ciphertext)) == "SEAL_INVALID"


def test_another_key_does_not_open_it() -> None:
    envelope, _ = seal()
    assert refusal(envelope, OTHER_KEY) == "SEAL_INVALID"
    assert refusal(envelope, RecipientKey.generate(MLKEM768_X25519)) == "SEAL_INVALID"
    assert refusal(envelope, None) == "SEAL_KEY_UNKNOWN"


@pytest.mark.parametrize("off_ms", [-WINDOW_MS - 1, WINDOW_MS + 1, -NOW_MS, 2**62])
def test_outside_the_window_it_is_expired(off_ms: int) -> None:
    assert refusal(seal(now_ms=NOW_MS + off_ms)[0]) == "SEAL_EXPIRED"


@pytest.mark.parametrize("off_ms", [-WINDOW_MS, 0, WINDOW_MS])
def test_on_the_edge_of_the_window_it_opens(off_ms: int) -> None:
    assert open_(seal(now_ms=NOW_MS + off_ms)[0]).message == b"secret"


@pytest.mark.parametrize("change", [{"version": 0}, {"version": 2}, {"request_id": b""}, {"request_id": bytes(17)}])
def test_a_header_of_another_format_is_refused(change: dict[str, Any]) -> None:
    envelope, _ = seal()
    header = EnvelopeHeader.FromString(envelope.header)
    for name, value in change.items():
        setattr(header, name, value)
    assert refusal(Envelope(header=header.SerializeToString(), ciphertext=envelope.ciphertext)) == "SEAL_INVALID"


def test_segments_open_in_their_order_alone() -> None:
    sender, recipient = sessions()
    first, second = recipient.seal_response(b"1"), recipient.seal_response(b"2", last=True)
    does_not_open(sender, second)
    does_not_open(sender, first)  # and after a failure nothing does


def test_a_segment_opens_once() -> None:
    sender, recipient = sessions()
    segment = recipient.seal_response(b"1")
    assert sender.open_response(segment) == b"1"
    does_not_open(sender, segment)


@pytest.mark.parametrize("last", [True, False])
def test_the_mark_of_the_last_segment_is_authenticated(last: bool) -> None:
    sender, recipient = sessions()
    segment = recipient.seal_response(b"1", last=last)
    does_not_open(sender, Segment(ciphertext=segment.ciphertext, last=not last))
    with pytest.raises(errors.InvalidArgument):
        sender.close()  # a broken end is not an end


def test_nothing_follows_the_last_segment() -> None:
    sender, recipient = sessions()
    last = recipient.seal_response(b"1", last=True)
    sender.open_response(last)
    does_not_open(sender, last)
    sender.close()


def test_a_request_cannot_come_back_as_a_response() -> None:
    sender, _ = sessions()
    does_not_open(sender, sender.seal_request(b"1"))


def test_a_segment_of_another_call_does_not_open() -> None:
    sender, _ = sessions()
    _, other = sessions()
    does_not_open(sender, other.seal_response(b"1"))


@pytest.mark.parametrize("plaintext", [b"", b"\x00", b"\x02x", b"\x00x"])
def test_a_segment_that_is_neither_a_message_nor_an_end_is_refused(plaintext: bytes) -> None:
    """What a recipient that holds the keys could still get wrong."""
    sender, recipient = sessions()
    directed = recipient._responses
    ciphertext = directed._aead.encrypt(directed._nonce(), plaintext, b"\x00")
    does_not_open(sender, Segment(ciphertext=ciphertext, last=False))
