"""Which key the SDK seals to: the gateway's preferred one, never believed by name, and pinned where there are pins."""

from __future__ import annotations

from typing import Any

import pytest

from meshgate import errors
from meshgate.client.keys import KeyCache, pins
from meshgate.sealing import codec
from meshgate.v1 import sealed_pb2

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
FIRST, SECOND = (codec.RecipientKey.generate(suite).public for suite in codec.SUITES)


def listed(key: codec.PublicKey, **changes: Any) -> sealed_pb2.SealingKey:
    fields: dict[str, Any] = {
        "key_id": key.key_id,
        "suite": key.suite,
        "public_key": key.data,
        "fingerprint": key.fingerprint,
        "not_before_unix_ms": NOW_MS,
        "not_after_unix_ms": NOW_MS + 100 * HOUR_MS,
        "recipient": sealed_pb2.SEALING_RECIPIENT_GATEWAY,
        **changes,
    }
    return sealed_pb2.SealingKey(**fields)


class Keys(KeyCache):
    """A cache whose clock can be set."""

    def __init__(self, *pinned: str) -> None:
        self.now = NOW_MS
        super().__init__(pins(pinned), lambda: self.now)


def test_the_first_is_taken_and_kept_for_an_hour() -> None:
    keys = Keys()
    assert keys.current() is None
    assert keys.take([listed(FIRST), listed(SECOND)]) == FIRST
    keys.now += HOUR_MS - 1
    assert keys.current() == FIRST
    keys.now += 1
    assert keys.current() is None


def test_no_longer_than_it_is_accepted() -> None:
    keys = Keys()
    keys.take([listed(FIRST, not_after_unix_ms=NOW_MS + 5)])
    keys.now += 5
    assert keys.current() is None


def test_a_clock_that_is_a_little_behind_takes_a_new_key() -> None:
    assert Keys().take([listed(FIRST, not_before_unix_ms=NOW_MS + 500)]) == FIRST


@pytest.mark.parametrize(
    "change",
    [
        {"recipient": sealed_pb2.SEALING_RECIPIENT_SERVICE},
        {"recipient": sealed_pb2.SEALING_RECIPIENT_UNSPECIFIED},
        {"suite": 99},
        {"suite": 0},
        {"public_key": b"short"},
    ],
)
def test_what_cannot_be_sealed_to_is_passed_over(change: dict[str, Any]) -> None:
    assert Keys().take([listed(FIRST, **change), listed(SECOND)]) == SECOND
    with pytest.raises(errors.Unimplemented) as caught:
        Keys().take([listed(FIRST, **change)])
    assert caught.value.reason == "SEALING_UNAVAILABLE"


def test_only_a_pinned_key_is_sealed_to() -> None:
    assert Keys(SECOND.fingerprint.hex()).take([listed(FIRST), listed(SECOND)]) == SECOND
    keys = Keys("00" * 32)
    with pytest.raises(errors.PermissionDenied) as caught:
        keys.take([listed(FIRST)])
    assert caught.value.reason == "SEALING_KEY_NOT_PINNED"
    assert keys.current() is None


def test_a_fingerprint_that_the_gateway_claims_counts_for_nothing() -> None:
    liar = listed(FIRST, fingerprint=SECOND.fingerprint, key_id=SECOND.key_id)
    with pytest.raises(errors.PermissionDenied):
        Keys(SECOND.fingerprint.hex()).take([liar])


def test_pins_are_read_as_people_write_them() -> None:
    digits = FIRST.fingerprint.hex()
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2)).upper()
    assert pins([digits]) == pins([colons]) == {FIRST.fingerprint}


@pytest.mark.parametrize("wrong", ["ab", ["zz"], ["ab"], [""], [FIRST.key_id], "00" * 32])
def test_a_pin_that_is_none_is_refused_at_once(wrong: Any) -> None:
    """Above all a single string, whose letters would be taken for pins."""
    with pytest.raises(ValueError, match=r".*"):
        pins(wrong)


def test_only_the_key_that_was_refused_is_forgotten() -> None:
    keys = Keys()
    keys.take([listed(FIRST)])
    keys.take([listed(SECOND)])
    keys.forget(FIRST)
    assert keys.current() == SECOND
    keys.forget(SECOND)
    assert keys.current() is None
