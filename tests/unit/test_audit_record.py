"""One record, one encoding; one content, one digest for who has the key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import ContentMac
from gateway.audit import record as records
from tests.audit_log import record


def test_the_encoding_is_canonical() -> None:
    assert records.encode(record(subject="bob\n\u00e9\u20ac\x7f")) == (
        b'{"decision":"allow","event":"ended","input_tokens":4,"method":"/meshgate.v1.GenerationService/Generate",'
        b'"request_id":"00000000000000000000000000000000","stages_us":{"authenticate":3,"forward":700},'
        b'"status":"OK","subject":"bob\\n\xc3\xa9\xe2\x82\xac\x7f","tenant":"acme","time":1800000000000000}'
    )


@given(st.text())
def test_any_text_is_one_line_of_json(text: str) -> None:
    line = records.encode(record(peer=text))
    assert b"\n" not in line
    assert json.loads(line).get("peer", "") == text


def test_what_is_empty_is_left_out() -> None:
    assert "reason" not in json.loads(records.encode(record(bytes_in=0)))
    assert "bytes_in" not in json.loads(records.encode(record(bytes_in=0)))


def mac(*messages: bytes, key: bytes = b"k" * 32, direction: str = "request") -> str:
    made = ContentMac(key, direction)
    for message in messages:
        made.update(message)
    return made.hexdigest()


def test_a_digest_names_its_content() -> None:
    assert mac(b"hello") == mac(b"hello")
    assert len(mac(b"hello")) == 64


@pytest.mark.parametrize(
    "other",
    [
        mac(b"hello", key=b"x" * 32),
        mac(b"hello", direction="reply"),
        mac(b"hel", b"lo"),
        mac(b"hello", b""),
        mac(b""),
        mac(),
    ],
)
def test_a_digest_differs_with_key_direction_and_cut(other: str) -> None:
    assert other != mac(b"hello")
