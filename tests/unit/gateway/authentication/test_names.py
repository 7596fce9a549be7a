"""A name has one spelling: hidden characters and second spellings are refused in every name."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.authentication import Authenticator, IssuerConfig, Revoked, names
from gateway.authentication.revocation.revocation_list import RevocationList
from gateway.authentication.revocation.revocation_source import RevocationFile
from gateway.authentication.source import SourceError
from gateway.authorisation.policy import PolicyConfig
from gateway.limits import LimitsConfig
from meshgate.errors import MeshError
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock

HIDDEN = {
    "empty": "",
    "blank": " ",
    "blanks": "   ",
    "a blank before": " bob",
    "a blank after": "bob ",
    "two blanks": "bo  b",
    "no-break space": "bo\u00a0b",
    "ogham space": "bo\u1680b",
    "thin space": "bo\u2009b",
    "ideographic space": "bo\u3000b",
    "line separator": "bo\u2028b",
    "tab": "bo\tb",
    "line feed": "bob\n",
    "null": "bo\x00b",
    "escape": "\x1b[2Jbob",
    "delete": "bob\x7f",
    "next line": "bo\u0085b",
    "zero width space": "bo\u200bb",
    "zero width joiner": "bo\u200db",
    "byte order mark": "\ufeffbob",
    "right to left override": "bo\u202eb",
    "isolate": "bo\u2068b",
    "soft hyphen": "bo\u00adb",
    "word joiner": "bo\u2060b",
    "grapheme joiner": "bo\u034fb",
    "hangul filler": "\u3164",
    "halfwidth filler": "bo\uffa0b",
    "choseong filler": "\u115f",
    "braille blank": "\u2800",
    "variation selector": "bob\ufe0f",
    "later variation selector": "bob\U000e0100",
    "mongolian selector": "bob\u180b",
    "khmer vowel": "bo\u17b4b",
    "tag": "bob\U000e0062",
    "private use": "bob\ue000",
    "unassigned": "bob\u0378",
    "not NFC": "Jose\u0301",
    "another way to write it": "\u212bsa",
    "jamo": "\u1112\u1161\u11ab",
    "a mark alone": "\u0301",
    "a mark first": "\u0301bob",
}
SURROGATES = {"a lone surrogate": "bo\ud800b", "surrogates the wrong way": "\udc00\ud800"}
SEEN = ["bob", "Bob Smith", "José", "李华", "auth0|6f1c", "CN=Ann,O=Ex ample", "한국", "हिन्दी", "👩", "a" * 256]


def refusal(path: Path, **claims: Any) -> str | None:
    try:
        tokens.authenticator(path, Clock()).authenticate(f"Bearer {tokens.token(**claims)}")
    except MeshError as error:
        return error.reason
    return None


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    return path


@pytest.mark.parametrize("claim", ["sub", "tenant", "jti"])
@pytest.mark.parametrize("name", [*HIDDEN, *SURROGATES])
def test_a_claim_in_which_something_hides_is_refused(jwks: Path, claim: str, name: str) -> None:
    assert refusal(jwks, **{claim: {**HIDDEN, **SURROGATES}[name]}) == "TOKEN_CLAIM"


@pytest.mark.parametrize("value", SEEN)
def test_a_claim_that_shows_all_it_says_is_believed(jwks: Path, value: str) -> None:
    assert refusal(jwks, sub=value, jti=value) is None
    Revoked(issuer=tokens.ISSUER, subject=value)
    Revoked(issuer=tokens.ISSUER, jti=value)


@pytest.mark.parametrize("field", ["jti", "subject"])
@pytest.mark.parametrize("name", [*HIDDEN, *SURROGATES])
def test_a_revocation_of_what_cannot_be_is_none(field: str, name: str) -> None:
    with pytest.raises(ValidationError):
        Revoked.model_validate({"issuer": tokens.ISSUER, field: {**HIDDEN, **SURROGATES}[name]})


@pytest.mark.parametrize("name", [*HIDDEN, *SURROGATES])
def test_no_part_of_the_configuration_names_anybody_so(tmp_path: Path, name: str) -> None:
    value = {**HIDDEN, **SURROGATES}[name]
    good = {"issuer": "https://a.test", "audience": "b", "jwks": tmp_path / "jwks.json"}
    for model, fields in (
        (Revoked, {"issuer": value, "subject": "bob"}),
        (IssuerConfig, {**good, "issuer": value}),
        (IssuerConfig, {**good, "audience": value}),
        (IssuerConfig, {**good, "tenants": [value]}),
        (PolicyConfig, {"tenants": {value: {"models": ["*"]}}}),
        (PolicyConfig, {"scopes": {value: ["/meshgate.v1.GenerationService/*"]}}),
        (LimitsConfig, {"tenants": {value: {}}}),
    ):
        with pytest.raises(ValidationError):
            model.model_validate(fields)


def test_what_unicode_calls_invisible_is_refused_all_over() -> None:
    for number in range(0x110000):
        letter = chr(number)
        if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or (
            unicodedata.category(letter) == "Zs" and letter != " "
        ):
            assert not names.is_visible(f"a{letter}b", 256), hex(number)


def test_a_list_says_where_it_is_wrong_and_nothing_of_the_name(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    path.write_text(json.dumps({"revoked": [{"issuer": tokens.ISSUER, "subject": "s3cret\u200b"}]}))
    with pytest.raises(SourceError, match=r"revoked\.0\.subject: must be visible text") as caught:
        RevocationFile(path).look_now(RevocationList())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("size", "reason"), [(2048, None), (2049, "TOKEN_CLAIM"), (4000, "TOKEN_CLAIM")])
def test_a_token_id_that_no_list_can_name_is_refused(jwks: Path, size: int, reason: str | None) -> None:
    assert refusal(jwks, jti="j" * size) == reason
    if reason is None:
        Revoked(issuer=tokens.ISSUER, jti="j" * size)
    else:
        with pytest.raises(ValidationError):
            Revoked(issuer=tokens.ISSUER, jti="j" * size)


@pytest.mark.parametrize("value", ["é" * 128, "é" * 129, "李" * 85, "李" * 86])
def test_a_subject_is_measured_alike_in_tokens_and_in_lists(jwks: Path, value: str) -> None:
    believed = refusal(jwks, sub=value) is None
    assert believed == (len(value.encode()) <= names.MAX_SUBJECT)
    try:
        Revoked(issuer=tokens.ISSUER, subject=value)
    except ValidationError:
        assert not believed
    else:
        assert believed


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [253_402_300_800, 2**53, 10**30, -1, "1800000000", True, None, [], 1e300])
def test_a_date_that_nothing_can_show_is_refused(jwks: Path, claim: str, value: Any) -> None:
    token = tokens.sign({"alg": "ES256", "kid": "ec"}, json.dumps({**tokens.claims(), claim: value}).encode())
    with pytest.raises(MeshError) as caught:
        tokens.authenticator(jwks, Clock()).authenticate(f"Bearer {token}")
    assert caught.value.reason == "TOKEN_CLAIM"


SPACES = [chr(n) for n in range(0x3001) if chr(n).isspace() and n != 0x20] + ["\u200b", "\ufeff", "\u2060"]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"U+{ord(space):04X}")
def test_a_scope_claim_parts_at_a_space_alone(jwks: Path, space: str) -> None:
    for claims in (
        {"scope": f"a{space}generate"},
        {"scope": f"generate{space}"},
        {"scope": None, "scp": f"a{space}generate"},
        {"scope": None, "scp": ["a", f"generate{space}"]},
    ):
        assert refusal(jwks, **claims) == "TOKEN_CLAIM"


@pytest.mark.parametrize(
    "value",
    ['a"b', "a\\b", "é", "\x7f", "a\x00b", "x" * 257, ["a b"], [""], ["a", 1], [None], [["a"]], {"a": 1}, 1, True],
)
def test_what_is_no_scope_is_refused(jwks: Path, value: Any) -> None:
    assert refusal(jwks, scope=None, scp=value) == "TOKEN_CLAIM"
    assert refusal(jwks, scope=value) == "TOKEN_CLAIM"


@pytest.mark.parametrize("value", ["generate  embed", " generate embed ", "generate embed"])
def test_spaces_alone_make_no_scope(authenticator: Authenticator, value: str) -> None:
    principal = authenticator.authenticate(f"Bearer {tokens.token(scope=value)}")
    assert principal.scopes == {"generate", "embed"}


@pytest.fixture
def authenticator(jwks: Path) -> Authenticator:
    return tokens.authenticator(jwks, Clock())
