"""The format in docs/formats/sealed-calls.md: a recorded call opens with our codec, and with RFC 9180 by hand.

The second half of this file is what an implementer in another language would write: it uses X25519, ML-KEM, SHA-2,
SHA-3 and AES-GCM, and nothing of meshgate.sealing.codec.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from meshgate.sealing import codec
from meshgate.v1.sealed_pb2 import Envelope, SealedBody, SealingSuite, Segment
from tests.support.fixtures.sealing_vector import NOW_MS, PATH, SUBJECT, TENANT

VECTORS = json.loads(PATH.read_text())
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector["suite"] for vector in VECTORS])


def test_there_is_a_vector_for_each_suite() -> None:
    assert [SealingSuite.Value(vector["suite"]) for vector in VECTORS] == list(codec.SUITES)


@each_vector
def test_the_recorded_call_opens(vector: dict[str, Any]) -> None:
    key = codec.RecipientKey(SealingSuite.Value(vector["suite"]), bytes.fromhex(vector["secret"]))
    assert key.public.data.hex() == vector["public_key"]
    assert (key.public.fingerprint.hex(), key.public.key_id) == (vector["fingerprint"], vector["key_id"])
    envelope = Envelope(header=bytes.fromhex(vector["header"]), ciphertext=bytes.fromhex(vector["ciphertext"]))
    opened = codec.open_envelope(
        {vector["key_id"]: key}.get, envelope, tenant=TENANT, subject=SUBJECT, now_ms=NOW_MS, window_ms=0
    )
    assert opened.message.hex() == vector["message"]
    for recorded in vector["requests"]:
        assert _hex(opened.session.open_request(_segment(recorded))) == recorded["message"]
    opened.session.close()
    sender = codec.SenderSession(bytes.fromhex(vector["reply_key"]), envelope.header)
    for recorded in vector["responses"]:
        assert _hex(sender.open_response(_segment(recorded))) == recorded["message"]
    sender.close()


@each_vector
def test_the_recorded_call_opens_by_hand(vector: dict[str, Any]) -> None:
    suite, header = SealingSuite.Value(vector["suite"]), bytes.fromhex(vector["header"])
    info = b"meshgate/sealed/v1" + b"\x00" + bytes([suite]) + header
    body = SealedBody.FromString(
        _hpke_open(suite, bytes.fromhex(vector["secret"]), bytes.fromhex(vector["ciphertext"]), info)
    )
    assert (body.reply_key.hex(), body.message.hex()) == (vector["reply_key"], vector["message"])
    for direction, label in (("requests", b"request"), ("responses", b"response")):
        prk = _extract(hashlib.sha256(header).digest(), body.reply_key)
        okm = _expand(prk, b"meshgate/sealed/v1/" + label, 44)
        for counter, recorded in enumerate(vector[direction]):
            nonce = (int.from_bytes(okm[32:], "big") ^ counter).to_bytes(12, "big")
            last = b"\x01" if recorded["last"] else b"\x00"
            plaintext = AESGCM(okm[:32]).decrypt(nonce, bytes.fromhex(recorded["ciphertext"]), last)
            expected = b"\x00" if recorded["message"] is None else b"\x01" + bytes.fromhex(recorded["message"])
            assert plaintext == expected


def _hex(message: bytes | None) -> str | None:
    return None if message is None else message.hex()


def _segment(recorded: dict[str, Any]) -> Segment:
    return Segment(ciphertext=bytes.fromhex(recorded["ciphertext"]), last=recorded["last"])


def _hpke_open(suite: codec.Suite, secret: bytes, sealed: bytes, info: bytes) -> bytes:
    """RFC 9180, section 6.1: single-shot open in base mode, with HKDF-SHA256 (1) and AES-256-GCM (2)."""
    decapsulate, kem, length = {
        SealingSuite.Value("SEALING_SUITE_X25519"): (_dhkem, 0x0020, 32),
        SealingSuite.Value("SEALING_SUITE_MLKEM768_X25519"): (_xwing, 0x647A, 1120),
    }[suite]
    suite_id = b"HPKE" + kem.to_bytes(2, "big") + b"\x00\x01" + b"\x00\x02"
    shared = decapsulate(secret, sealed[:length])
    context = b"\x00" + _labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    context += _labeled_extract(suite_id, b"", b"info_hash", info)
    prk = _labeled_extract(suite_id, shared, b"secret", b"")
    key = _labeled_expand(suite_id, prk, b"key", context, 32)
    nonce = _labeled_expand(suite_id, prk, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed[length:], b"")


def _dhkem(secret: bytes, enc: bytes) -> bytes:
    """RFC 9180, section 4.1."""
    private = x25519.X25519PrivateKey.from_private_bytes(secret)
    shared = private.exchange(x25519.X25519PublicKey.from_public_bytes(enc))
    suite_id = b"KEM\x00\x20"
    prk = _labeled_extract(suite_id, b"", b"eae_prk", shared)
    return _labeled_expand(suite_id, prk, b"shared_secret", enc + private.public_key().public_bytes_raw(), 32)


def _xwing(secret: bytes, enc: bytes) -> bytes:
    """draft-connolly-cfrg-xwing-kem: SHA3-256 of both shared secrets, the X25519 ciphertext and key, and the label."""
    private = x25519.X25519PrivateKey.from_private_bytes(secret[64:])
    post_quantum = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:64]).decapsulate(enc[:1088])
    traditional = private.exchange(x25519.X25519PublicKey.from_public_bytes(enc[1088:]))
    public = private.public_key().public_bytes_raw()
    return hashlib.sha3_256(post_quantum + traditional + enc[1088:] + public + rb"\.//^" + b"\\").digest()


def _extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def _expand(prk: bytes, info: bytes, length: int) -> bytes:
    out, block = b"", b""
    for number in range(1, length // 32 + 2):
        block = hmac.digest(prk, block + info + bytes([number]), "sha256")
        out += block
    return out[:length]


def _labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return _extract(salt, b"HPKE-v1" + suite_id + label + ikm)


def _labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return _expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info, length)
