"""Sealed calls: HPKE envelopes and the segments that follow them. Pure: bytes and times in, bytes out. Both roles.

A sender seals a request to a recipient's public key (HPKE base mode, RFC 9180). What the gateway polices stands in a
header that anyone may read; `info` binds every byte of it, so that a body opens under its own header alone: not under
another method, model, principal, key or time. Inside travels a fresh 32-byte reply key, from which both ends derive two
AES-256-GCM keys (HKDF-SHA256), one a direction. A segment's nonce is a counter and its associated data says whether it
is the last, so that reordering, repetition and truncation are errors. docs/formats/sealed-calls.md specifies the
format for other languages; docs/concepts/sealing.md has the threat model.

Opening never returns a bool: it returns what was sealed, or raises InvalidArgument of reason SEAL_INVALID, the same for
every cause, so that errors are no oracle.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from meshgate import errors
from meshgate.v1 import sealed_pb2
from meshgate.v1.sealed_pb2 import Envelope, EnvelopeHeader, SealedBody, Segment

VERSION: Final = 1
MLKEM768_X25519: Final = sealed_pb2.SEALING_SUITE_MLKEM768_X25519
X25519: Final = sealed_pb2.SEALING_SUITE_X25519
SUITES: Final = (MLKEM768_X25519, X25519)

Suite: TypeAlias = sealed_pb2.SealingSuite.ValueType
_HpkePrivate = hpke.MLKEM768X25519PrivateKey | x25519.X25519PrivateKey
_HpkePublic = hpke.MLKEM768X25519PublicKey | x25519.X25519PublicKey

_INFO: Final = b"meshgate/sealed/v1\x00"
_USED: Final = b"meshgate/sealed/v1/used"
_ENCAPSULATED_BYTES: Final = 32
"""All of X25519's encapsulated key, and of MLKEM768_X25519's as much as makes it one alone."""
_REQUEST: Final = b"meshgate/sealed/v1/request"
_RESPONSE: Final = b"meshgate/sealed/v1/response"
_REPLY_KEY_BYTES: Final = 32
_REQUEST_ID_BYTES: Final = 16
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32
_MAX_SEGMENTS: Final = 2**31
_NAME_BYTES: Final = 256
_KEY_ID_BYTES: Final = 64
_RECIPIENTS: Final = (sealed_pb2.SEALING_RECIPIENT_GATEWAY, sealed_pb2.SEALING_RECIPIENT_SERVICE)
MOST_TOKENS: Final = 2**31 - 1
"""The largest token_cap of a header."""
_NO_MESSAGE: Final = b"\x00"
_MESSAGE: Final = b"\x01"

_HPKE: Final = {
    MLKEM768_X25519: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}


def invalid() -> errors.InvalidArgument:
    """What every envelope or segment that does not open raises."""
    return errors.InvalidArgument("the sealed message does not open", reason="SEAL_INVALID")


def replayed() -> errors.InvalidArgument:
    """What an envelope that was used before raises."""
    return errors.InvalidArgument("the envelope was used before", reason="SEAL_REPLAYED")


@dataclass(frozen=True)
class PublicKey:
    """A recipient's public key. `data` is 1,216 bytes for MLKEM768_X25519 (ML-KEM, then X25519), 32 for X25519."""

    suite: Suite
    data: bytes

    def __post_init__(self) -> None:
        """Raises ValueError for a suite or a length that there is not."""
        _public(self.suite, self.data)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the suite's number, one byte, and the key. 32 bytes, for pinning."""
        return hashlib.sha256(bytes([self.suite]) + self.data).digest()

    @property
    def key_id(self) -> str:
        """The first 16 hexadecimal digits of the fingerprint."""
        return self.fingerprint.hex()[:16]


class RecipientKey:
    """A recipient's private key."""

    def __init__(self, suite: Suite, secret: bytes) -> None:
        """`secret` as `to_bytes` gave it. Raises ValueError where it is not one of `suite`."""
        self._secret = secret
        self._private = _private(suite, secret)
        self.public = PublicKey(suite, _public_bytes(suite, secret))

    @classmethod
    def generate(cls, suite: Suite = MLKEM768_X25519) -> RecipientKey:
        """A new key."""
        length = _X25519_BYTES + (_MLKEM_SEED_BYTES if suite == MLKEM768_X25519 else 0)
        return cls(suite, secrets.token_bytes(length))

    def to_bytes(self) -> bytes:
        """The secret: 96 bytes for MLKEM768_X25519 (ML-KEM seed, then X25519), 32 for X25519. Keep it so."""
        return self._secret

    def open(self, ciphertext: bytes, info: bytes) -> bytes:
        """HPKE open. Raises InvalidArgument (SEAL_INVALID)."""
        try:
            return _HPKE[self.public.suite].decrypt(ciphertext, self._private, info=info)
        except (InvalidTag, ValueError):
            raise invalid() from None


def _private(suite: Suite, secret: bytes) -> _HpkePrivate:
    if suite == X25519:
        return x25519.X25519PrivateKey.from_private_bytes(secret)
    if suite != MLKEM768_X25519 or len(secret) != _MLKEM_SEED_BYTES + _X25519_BYTES:
        raise ValueError("not a secret of a known suite")
    return hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED_BYTES]),
        x25519.X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED_BYTES:]),
    )


def _public_bytes(suite: Suite, secret: bytes) -> bytes:
    traditional = x25519.X25519PrivateKey.from_private_bytes(secret[-_X25519_BYTES:]).public_key().public_bytes_raw()
    if suite == X25519:
        return traditional
    post_quantum = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED_BYTES]).public_key()
    return post_quantum.public_bytes_raw() + traditional


@lru_cache(maxsize=64)  # parsing an ML-KEM key costs as much as sealing to an X25519 one
def _public(suite: Suite, data: bytes) -> _HpkePublic:
    if suite == X25519:
        return x25519.X25519PublicKey.from_public_bytes(data)
    if suite != MLKEM768_X25519 or len(data) != _MLKEM_PUBLIC_BYTES + _X25519_BYTES:
        raise ValueError("not a public key of a known suite")
    return hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC_BYTES]),
        x25519.X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC_BYTES:]),
    )


def _info(suite: Suite, header: bytes) -> bytes:
    """What HPKE binds the body to: the format, the suite and every byte of the header."""
    return _INFO + bytes([suite]) + header


class _Direction:
    """One direction of a call: seals, or opens, its segments in order."""

    def __init__(self, reply_key: bytes, header: bytes, label: bytes) -> None:
        salt = hashlib.sha256(header).digest()
        derived = HKDF(hashes.SHA256(), _KEY_BYTES + _NONCE_BYTES, salt, label).derive(reply_key)
        self._aead = AESGCM(derived[:_KEY_BYTES])
        self._base = int.from_bytes(derived[_KEY_BYTES:])
        self._count = 0
        self._complete = False
        self._broken = False

    def seal(self, message: bytes | None, last: bool) -> Segment:
        """Raises RuntimeError for what no caller can cause: a segment after the last, or an empty one before it."""
        if self._complete or (message is None and not last):
            raise RuntimeError("a segment after the last one, or one without a message that is not the last")
        plaintext = _NO_MESSAGE if message is None else _MESSAGE + message
        ciphertext = self._aead.encrypt(self._nonce(), plaintext, bytes([last]))
        self._complete = last
        return Segment(ciphertext=ciphertext, last=last)

    def open(self, segment: Segment) -> bytes | None:
        """After one that does not open none does: what comes later can't be what was sent next."""
        if self._complete or self._broken:
            raise invalid()
        self._broken = True
        message = self._plaintext(segment)
        self._broken = False
        self._complete = segment.last
        return message

    def _plaintext(self, segment: Segment) -> bytes | None:
        try:
            plaintext = self._aead.decrypt(self._nonce(), segment.ciphertext, bytes([segment.last]))
        except (InvalidTag, ValueError):
            raise invalid() from None
        if plaintext[:1] == _MESSAGE:
            return plaintext[1:]
        if plaintext != _NO_MESSAGE or not segment.last:
            raise invalid()
        return None

    def _nonce(self) -> bytes:
        """The next nonce, never one twice: base XOR counter, as in RFC 9180 section 5.2."""
        if self._count >= _MAX_SEGMENTS:
            raise invalid()
        nonce, self._count = self._base ^ self._count, self._count + 1
        return nonce.to_bytes(_NONCE_BYTES)

    def close(self) -> None:
        """Raises InvalidArgument (SEAL_INVALID) unless the last segment has passed: what is missing was cut off."""
        if not self._complete:
            raise invalid()


class _Session:
    """Both directions of a call. A direction's keys are derived when it is first used; most calls use but one."""

    def __init__(self, reply_key: bytes, header: bytes) -> None:
        self._reply_key = reply_key
        self._header = header

    @cached_property
    def _requests(self) -> _Direction:
        return _Direction(self._reply_key, self._header, _REQUEST)

    @cached_property
    def _responses(self) -> _Direction:
        return _Direction(self._reply_key, self._header, _RESPONSE)


class SenderSession(_Session):
    """The sender's side of a call under way. Each direction is for one thread at a time."""

    def seal_request(self, message: bytes | None, *, last: bool = False) -> Segment:
        """Seals the next streamed request; None, with `last`, ends the stream without a message."""
        return self._requests.seal(message, last)

    def open_response(self, segment: Segment) -> bytes | None:
        """The next response, or None for an end without a message. Raises InvalidArgument (SEAL_INVALID)."""
        return self._responses.open(segment)

    def close(self) -> None:
        """Checks that the responses are complete. Raises InvalidArgument (SEAL_INVALID)."""
        self._responses.close()


class RecipientSession(_Session):
    """The recipient's side of a call under way. Each direction is for one thread at a time."""

    def open_request(self, segment: Segment) -> bytes | None:
        """The next streamed request, or None for an end without a message. Raises InvalidArgument (SEAL_INVALID)."""
        return self._requests.open(segment)

    def seal_response(self, message: bytes | None, *, last: bool = False) -> Segment:
        """Seals the next response; None, with `last`, ends the stream without a message."""
        return self._responses.seal(message, last)

    def close(self) -> None:
        """Checks that the streamed requests are complete. Raises InvalidArgument (SEAL_INVALID)."""
        self._requests.close()


@dataclass(frozen=True)
class Opened:
    """An envelope that opened."""

    header: EnvelopeHeader
    message: bytes
    """The request, of a streaming client the first."""
    session: RecipientSession


def seal_request(
    key: PublicKey,
    message: bytes,
    *,
    method: str,
    tenant: str,
    subject: str,
    now_ms: int,
    model: str = "",
    token_cap: int | None = None,
    recipient: sealed_pb2.SealingRecipient.ValueType = sealed_pb2.SEALING_RECIPIENT_GATEWAY,
) -> tuple[Envelope, SenderSession]:
    """Seals a request of `method`, of a streaming client the first, for the caller `tenant`, `subject`.

    `now_ms` is in milliseconds since the Unix epoch. Raises ValueError for a key that nothing can be sealed to.
    """
    header = EnvelopeHeader(
        version=VERSION,
        method=method,
        model=model,
        token_cap=token_cap,
        key_id=key.key_id,
        sealed_at_unix_ms=now_ms,
        request_id=secrets.token_bytes(_REQUEST_ID_BYTES),
        tenant=tenant,
        subject=subject,
        recipient=recipient,
    ).SerializeToString()
    reply_key = secrets.token_bytes(_REPLY_KEY_BYTES)
    body = SealedBody(reply_key=reply_key, message=message).SerializeToString()
    ciphertext = _HPKE[key.suite].encrypt(body, _public(key.suite, key.data), info=_info(key.suite, header))
    return Envelope(header=header, ciphertext=ciphertext), SenderSession(reply_key, header)


def open_envelope(
    find: Callable[[str], RecipientKey | None],
    envelope: Envelope,
    *,
    tenant: str,
    subject: str,
    now_ms: int,
    window_ms: int,
) -> Opened:
    """Opens an envelope of the authenticated caller `tenant`, `subject`. `find` gives the key of an id, or None.

    Raises InvalidArgument: SEAL_KEY_UNKNOWN, SEAL_EXPIRED (sealed more than `window_ms` from `now_ms`), or
    SEAL_INVALID for all else. Whether the envelope was used before is for a ReplayCache to say.
    """
    header = _read_header(envelope.header)
    check_header(header, tenant, subject, now_ms, window_ms)
    key = find(header.key_id)
    if key is None:
        raise errors.InvalidArgument("no such sealing key; list them again", reason="SEAL_KEY_UNKNOWN")
    body = _read_body(key.open(envelope.ciphertext, _info(key.public.suite, envelope.header)))
    return Opened(header, body.message, RecipientSession(body.reply_key, envelope.header))


def check_fields(header: EnvelopeHeader) -> None:
    """Holds the fields of a header to their ranges. Raises InvalidArgument, which names the field.

    What must not be told apart from a body that does not open is check_header's.
    """
    for name, text in (("method", header.method), ("model", header.model)):
        if len(text.encode()) > _NAME_BYTES:
            raise _out_of_range(name, f"must be at most {_NAME_BYTES} bytes")
    if not 1 <= len(header.key_id.encode()) <= _KEY_ID_BYTES:
        raise _out_of_range("key_id", f"must be from 1 to {_KEY_ID_BYTES} bytes")
    if header.recipient not in _RECIPIENTS:
        raise _out_of_range("recipient", "must be the gateway or the service")
    if header.HasField("token_cap"):
        if not 1 <= header.token_cap <= MOST_TOKENS:
            raise _out_of_range("token_cap", f"must be from 1 to {MOST_TOKENS:,}")
    elif header.recipient == sealed_pb2.SEALING_RECIPIENT_SERVICE:
        raise _out_of_range("token_cap", "is required for a service as recipient: the gateway can't read the body")


def _out_of_range(field: str, description: str) -> errors.InvalidArgument:
    return errors.InvalidArgument.of(f"envelope.header.{field}", description)


def check_header(header: EnvelopeHeader, tenant: str, subject: str, now_ms: int, window_ms: int) -> None:
    """Holds a header to the caller and the clock, which whoever polices an envelope can without opening it.

    Raises InvalidArgument (SEAL_INVALID, SEAL_EXPIRED).
    """
    if header.version != VERSION or len(header.request_id) != _REQUEST_ID_BYTES:
        raise invalid()
    if (header.tenant, header.subject) != (tenant, subject):
        raise invalid()
    if abs(now_ms - header.sealed_at_unix_ms) > window_ms:
        raise errors.InvalidArgument("the envelope is too old, or a clock is wrong", reason="SEAL_EXPIRED")


def _read_header(data: bytes) -> EnvelopeHeader:
    try:
        header = EnvelopeHeader.FromString(data)
    except DecodeError:
        raise invalid() from None
    return header


def _read_body(data: bytes) -> SealedBody:
    try:
        body = SealedBody.FromString(data)
    except DecodeError:
        raise invalid() from None
    if len(body.reply_key) != _REPLY_KEY_BYTES:
        raise invalid()
    return body


def used_by(envelope: Envelope, tenant: str, subject: str) -> bytes:
    """What an envelope is remembered by once the authenticated caller `tenant`, `subject` has used it. 32 bytes.

    All of the header, whose request id anyone may read and copy, counts, and so does the encapsulated key, which is
    random; and so does the caller, so that nobody uses up what another sealed.
    """
    made = hashlib.sha256(_USED)
    for part in (tenant.encode(), subject.encode(), envelope.header, envelope.ciphertext[:_ENCAPSULATED_BYTES]):
        made.update(len(part).to_bytes(8) + part)
    return made.digest()


class ReplayCache:
    """Remembers the envelopes of the time in which they could be used again, by what `used_by` makes of them.

    Bounded: full, it refuses new ones.
    """

    def __init__(self, window_ms: int, capacity: int) -> None:
        self._window_ms = window_ms
        self._capacity = capacity
        self._seen: dict[bytes, int] = {}

    def admit(self, used: bytes, now_ms: int) -> None:
        """Raises InvalidArgument (SEAL_REPLAYED) for an envelope seen before, and Unavailable when full."""
        self._expire(now_ms)
        if used in self._seen:
            raise replayed()
        if len(self._seen) >= self._capacity:
            raise errors.Unavailable("too many sealed calls at once", reason="OVERLOADED", retry_after=1.0)
        self._seen[used] = now_ms + 2 * self._window_ms

    def forget(self, used: bytes) -> None:
        """Takes back what was admitted, and was not used after all."""
        self._seen.pop(used, None)

    def _expire(self, now_ms: int) -> None:
        """Drops what is too old to open anyway; entries are in the order of their end."""
        for used in list(_while_past(self._seen.items(), now_ms)):
            del self._seen[used]


def _while_past(entries: Iterable[tuple[bytes, int]], now_ms: int) -> Iterable[bytes]:
    for used, until in entries:
        if until >= now_ms:
            return
        yield used
