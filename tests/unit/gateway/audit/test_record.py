"""One record has one encoding; one content has one HMAC for each key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import AuditRecord, ContentHmac
from gateway.audit import record as records
from gateway.audit.keys.content_hmac import Direction
from tests.support.fixtures.audit_log import record


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


_TEXTS = st.text(st.characters(codec=None), max_size=12)
_NUMBERS = st.integers(0, 2**53 - 1)
_FIELDS = {
    name: st.dictionaries(st.sampled_from(["read", "open", "for%d", 'a"b', "\u00e9"]), _NUMBERS)
    if name == "stages_us"
    else _NUMBERS
    if kind is int
    else _TEXTS
    for name, kind in records.KINDS.items()
}


@given(st.fixed_dictionaries({}, optional=_FIELDS))
def test_the_fast_encoding_and_the_definition_agree(made: AuditRecord) -> None:
    assert records.encode(made) == records.canonical({name: value for name, value in made.items() if value})


def test_every_field_is_encoded() -> None:
    values: dict[type, Any] = {str: "x", int: 1, dict: {"read": 1}}
    full: Any = {name: values[kind] for name, kind in records.KINDS.items()}
    assert set(json.loads(records.encode(full))) == set(AuditRecord.__annotations__)


@pytest.mark.parametrize(
    "bad",
    [
        {"time": 1.5},
        {"peer": 5},
        {"tenant": 5},
        {"stages_us": {"x": "1"}},
        {"bytes_in": "1"},
        {"bytes_in": True},
    ],
)
def test_what_is_of_another_type_has_no_encoding(bad: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        records.encode(record(**bad))


def test_what_is_empty_is_left_out() -> None:
    assert "reason" not in json.loads(records.encode(record(bytes_in=0)))
    assert "bytes_in" not in json.loads(records.encode(record(bytes_in=0)))


def mac(*messages: bytes, key: bytes = b"k" * 32, direction: Direction = "request") -> str:
    made = ContentHmac(key, direction)
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


def test_a_fresh_digest_is_as_one_made_from_the_key() -> None:
    blank = ContentHmac(b"k" * 32, "request")
    used = blank.copy()
    used.update(b"hello")
    again = blank.copy()
    again.update(b"hello")
    assert used.hexdigest() == again.hexdigest() == mac(b"hello")
