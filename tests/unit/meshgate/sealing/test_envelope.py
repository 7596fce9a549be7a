"""The sealing codec: what is sealed opens, in order, whole, for both suites and both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate import errors
from meshgate.sealing import codec
from meshgate.sealing.codec import MLKEM768_X25519, SUITES, X25519, RecipientKey
from meshgate.v1 import sealed_pb2

NOW_MS = 1_800_000_000_000
METHOD = "/meshgate.v1.GenerationService/Generate"
KEYS = {suite: RecipientKey.generate(suite) for suite in SUITES}


def sealed(message: bytes = b"hello", suite: codec.Suite = X25519) -> tuple[sealed_pb2.Envelope, codec.SenderSession]:
    return codec.seal_request(KEYS[suite].public, message, method=METHOD, tenant="acme", subject="alice", now_ms=NOW_MS)


def opened(envelope: sealed_pb2.Envelope, suite: codec.Suite = X25519) -> codec.Opened:
    return codec.open_envelope(
        {KEYS[suite].public.key_id: KEYS[suite]}.get,
        envelope,
        tenant="acme",
        subject="alice",
        now_ms=NOW_MS,
        window_ms=1000,
    )


def sessions() -> tuple[codec.SenderSession, codec.RecipientSession]:
    envelope, sender = sealed()
    return sender, opened(envelope).session


def reason(call: pytest.ExceptionInfo[errors.InvalidArgument]) -> str:
    return call.value.reason


@pytest.mark.parametrize("suite", SUITES)
@given(message=st.binary(max_size=5000))
def test_a_request_opens_as_it_was_sealed(suite: codec.Suite, message: bytes) -> None:
    envelope, _ = sealed(message, suite)
    assert opened(envelope, suite).message == message


def test_the_header_says_what_the_gateway_may_know() -> None:
    key = KEYS[MLKEM768_X25519].public
    envelope, _ = codec.seal_request(
        key,
        b"",
        method=METHOD,
        model="m",
        token_cap=7,
        tenant="t",
        subject="s",
        now_ms=NOW_MS,
        recipient=sealed_pb2.SEALING_RECIPIENT_SERVICE,
    )
    header = sealed_pb2.EnvelopeHeader.FromString(envelope.header)
    assert len(header.request_id) == 16
    header.ClearField("request_id")
    assert header == sealed_pb2.EnvelopeHeader(
        version=1,
        method=METHOD,
        model="m",
        token_cap=7,
        key_id=key.key_id,
        sealed_at_unix_ms=NOW_MS,
        tenant="t",
        subject="s",
        recipient=sealed_pb2.SEALING_RECIPIENT_SERVICE,
    )


def test_no_cap_and_a_cap_of_nothing_differ() -> None:
    header = sealed_pb2.EnvelopeHeader.FromString(sealed()[0].header)
    assert not header.HasField("token_cap")


def test_equal_requests_look_different() -> None:
    first, second = sealed()[0], sealed()[0]
    assert first.header != second.header
    assert first.ciphertext != second.ciphertext


@given(st.lists(st.one_of(st.binary(max_size=300)), max_size=20))
def test_both_directions_carry_messages_in_order(messages: list[bytes]) -> None:
    sender, recipient = sessions()
    for message in messages:
        assert recipient.open_request(sender.seal_request(message)) == message
        assert sender.open_response(recipient.seal_response(message)) == message
    assert recipient.open_request(sender.seal_request(None, last=True)) is None
    assert sender.open_response(recipient.seal_response(None, last=True)) is None
    recipient.close()
    sender.close()


def test_the_last_segment_may_carry_a_message() -> None:
    sender, recipient = sessions()
    assert sender.open_response(recipient.seal_response(b"only", last=True)) == b"only"
    sender.close()


def test_an_empty_message_is_not_no_message() -> None:
    sender, recipient = sessions()
    assert sender.open_response(recipient.seal_response(b"", last=True)) == b""
    sender, recipient = sessions()
    assert sender.open_response(recipient.seal_response(None, last=True)) is None


def test_a_stream_without_its_last_segment_was_cut() -> None:
    sender, recipient = sessions()
    sender.open_response(recipient.seal_response(b"more follows"))
    for session in (sender, recipient):
        with pytest.raises(errors.InvalidArgument) as caught:
            session.close()
        assert reason(caught) == "SEAL_INVALID"


def test_what_the_sender_can_do_wrong_is_its_own_error() -> None:
    _, recipient = sessions()
    with pytest.raises(RuntimeError):
        recipient.seal_response(None)
    recipient.seal_response(b"", last=True)
    with pytest.raises(RuntimeError):
        recipient.seal_response(b"after the end")


@pytest.mark.parametrize(("suite", "public", "secret"), [(MLKEM768_X25519, 1216, 96), (X25519, 32, 32)])
def test_keys_keep_their_form(suite: codec.Suite, public: int, secret: int) -> None:
    key = KEYS[suite]
    assert (len(key.public.data), len(key.to_bytes())) == (public, secret)
    assert RecipientKey(suite, key.to_bytes()).public == key.public
    assert codec.PublicKey(suite, key.public.data).key_id == key.public.fingerprint.hex()[:16]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("length", [0, 31, 33, 96, 1215, 1217])
def test_a_key_of_another_length_is_refused(suite: codec.Suite, length: int) -> None:
    with pytest.raises(ValueError, match=r".*"):
        codec.PublicKey(suite, bytes(length))
    if length != 96 or suite == X25519:
        with pytest.raises(ValueError, match=r".*"):
            RecipientKey(suite, bytes(length))


def test_the_same_bytes_under_another_suite_are_another_key() -> None:
    key = KEYS[X25519]
    with pytest.raises(ValueError, match="suite"):
        codec.PublicKey(sealed_pb2.SEALING_SUITE_UNSPECIFIED, key.public.data)


def test_nothing_secret_is_shown() -> None:
    key = KEYS[X25519]
    assert key.to_bytes().hex() not in repr(key) + str(key)
    assert repr(key.to_bytes()) not in repr(key)
