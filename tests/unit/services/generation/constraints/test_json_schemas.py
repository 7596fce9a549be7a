"""JSON schemas in their whole breadth: what demands nothing is accepted, what is made matches, the rest is refused.

What is made is judged by `valid`, which knows JSON Schema and nothing of how outputs are made.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from meshgate.errors import InvalidArgument
from services.generation.constraints import Grammars
from services.generation.engine.interface import FinishReason, Sampling
from services.generation.text.detokenise import TokenBytes
from tests.support.fixtures.generation import END, Bench, Letters, greedy
from tests.unit.services.generation.constraints.test_constraints import constraint

GRAMMARS = Grammars(TokenBytes(Letters()), frozenset((END,)), lambda text: list(text.encode()))
_NAMED = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["a"]}
_CLOSED = {**_NAMED, "additionalProperties": False}
_DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
_LETTER = {"type": "string", "pattern": "^[a-c]$"}
_SHORT = {"type": "array", "items": _DIGIT, "maxItems": 3}

TRIVIAL = [
    {**_SHORT, "uniqueItems": False},
    {**_SHORT, "uniqueItems": True, "maxItems": 1},
    {"type": "array", "prefixItems": [_DIGIT], "items": False, "uniqueItems": True},
    {**_LETTER, "uniqueItems": True},
    {**_LETTER, "format": "colour"},
    {**_LETTER, "format": "regex"},
    {**_DIGIT, "format": "int32"},
    {**_DIGIT, "format": "date"},
    {"enum": ["x"], "format": "uri-reference"},
    {**_CLOSED, "propertyNames": True},
    {**_CLOSED, "propertyNames": {}},
    {"type": "object", "propertyNames": False},
    {**_CLOSED, "minProperties": 0},
    {**_CLOSED, "minProperties": 1},
    {**_CLOSED, "dependentRequired": {}},
    {**_CLOSED, "dependentRequired": {"b": []}},
    {**_CLOSED, "dependentRequired": {"a": []}},
    {**_CLOSED, "dependentSchemas": {"b": True, "c": {}}},
    {**_CLOSED, "dependencies": {"b": [], "c": {}}},
    {**_CLOSED, "dependentSchemas": {"a": {"properties": {"a": {"maximum": 3}}}}},
    {**_CLOSED, "properties": {"a": _DIGIT, "b": _DIGIT}, "dependentRequired": {"a": ["b"]}},
    {**_CLOSED, "properties": {"a": _DIGIT, "b": _DIGIT}, "dependencies": {"a": ["b"]}},
    {**_CLOSED, "unevaluatedProperties": False},
    {**_NAMED, "unevaluatedProperties": False},
    {**_CLOSED, "unevaluatedProperties": True},
    {**_SHORT, "unevaluatedItems": False},
    {"type": "array", "prefixItems": [_DIGIT], "unevaluatedItems": False, "minItems": 1},
    {**_SHORT, "contains": True},
    {**_SHORT, "contains": {}, "minContains": 2},
    {**_SHORT, "contains": {}, "maxContains": 1},
    {**_SHORT, "contains": _LETTER, "minContains": 0},
    {**_SHORT, "minContains": 2, "maxContains": 1},
    {**_DIGIT, "not": False},
    {**_DIGIT, "if": True},
    {**_DIGIT, "if": True, "then": {"maximum": 4}, "else": {"maximum": 1}},
    {**_DIGIT, "if": False, "then": {"maximum": 1}, "else": {"maximum": 4}},
    {**_DIGIT, "if": {"maximum": 3}},
    {**_DIGIT, "if": {"maximum": 3}, "then": {}, "else": True},
    {**_DIGIT, "then": {"maximum": 3}},
    {**_DIGIT, "$dynamicAnchor": "here"},
    {**_DIGIT, "$anchor": "here", "$id": "https://example.com/x", "$vocabulary": {}},
    {**_DIGIT, "$comment": "x", "title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": True},
    {**_LETTER, "readOnly": True, "writeOnly": False, "contentEncoding": "base64", "contentMediaType": "text/plain"},
    {**_LETTER, "contentSchema": {"type": "string"}, "nullable": False, "x-mine": {"not": {}}, "discriminator": {}},
    {**_SHORT, "minItems": 0, "additionalItems": True},
    {**_LETTER, "minLength": 0},
    {"type": "object", "properties": {"a": _DIGIT, "b": False}, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"const": True}, "b": {"const": None}}, "additionalProperties": False},
    {"const": {"a": [1, None, True, "x", 0.5], "b": {}}},
    {"enum": ["a", 1, None, True, {"a": 1}, [1, "b"], 1.5]},
    {"anyOf": [_DIGIT, {**_LETTER, "format": "other"}]},
    {"oneOf": [_DIGIT, _LETTER]},
    {"allOf": [_DIGIT, {"maximum": 4}, True, {"uniqueItems": False}]},
    {"$defs": {"d": {**_SHORT, "uniqueItems": False}}, "$ref": "#/$defs/d"},
    {"definitions": {"d": _DIGIT}, "type": "array", "items": {"$ref": "#/definitions/d"}, "maxItems": 2},
    {"type": ["integer", "null"], "minimum": 3, "maximum": 5},
    {"const": "a\x7fb"},
    {"enum": ["\x01", "tab\t"]},
    {**_CLOSED, "properties": {"a": {"enum": ["\x7f"]}}},
    {**_CLOSED, "required": ["a", "a"]},
    {**_CLOSED, "properties": {"a": _DIGIT, "b": _DIGIT}, "required": [], "minProperties": 1},
    {"type": "object", "additionalProperties": _DIGIT, "minProperties": 1, "maxProperties": 2},
    {**_NAMED, "additionalProperties": _DIGIT, "minProperties": 2, "maxProperties": 2},
    *({**_DIGIT, key: 2} for key in ("minProperties", "maxProperties", "minItems", "maxItems", "minLength")),
    {**_SHORT, "minItems": 1.0, "maxItems": 2.0},
    {"type": "string", "minLength": 1.0, "maxLength": 2.0},
    {"type": "object", "additionalProperties": _DIGIT, "minProperties": 1.0, "maxProperties": 1.0},
    {**_DIGIT, "$recursiveAnchor": True},
    {"type": "array", "prefixItems": [_DIGIT, _LETTER], "items": False, "additionalItems": True},
    {"type": "array", "prefixItems": [_DIGIT, _LETTER], "additionalItems": False, "maxItems": 2},
    {**_SHORT, "contains": {"title": "anything"}},
    {**_SHORT, "contains": {"anyOf": [_DIGIT, {"description": "or anything"}]}},
    {**_CLOSED, "propertyNames": {"type": "string"}},
    {**_CLOSED, "propertyNames": {"minLength": 0, "$comment": "x"}},
    {**_CLOSED, "required": [], "propertyNames": {"type": "integer"}},
    {**_CLOSED, "required": [], "maxProperties": 0},
    {**_CLOSED, "required": [], "maxProperties": 1},
    {**_CLOSED, "dependentRequired": {"a": ["a"], "x": ["y"]}},
    {**_CLOSED, "dependentSchemas": {"x": False}},
    {**_DIGIT, "not": {"type": "string"}},
    {**_DIGIT, "not": {"enum": ["a", None]}},
    {**_DIGIT, "not": {"type": "integer", "minimum": 10}},
    {"enum": [1, 2], "not": {"const": 3}},
    {"oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]},
    {"type": "string", "oneOf": [{"const": "a"}, {"enum": ["b", "c"]}]},
    {**_DIGIT, "oneOf": [{"maximum": 2}, {"minimum": 7}]},
    {**_DIGIT, "oneOf": [{"maximum": 3}, {"exclusiveMinimum": 3}]},
    {"oneOf": [{"type": "null"}, {**_DIGIT, "description": "d"}]},
    {"const": 9007199254740992},
    {"enum": [-9007199254740992, 0.1, 123456.789]},
]
"""Accepted, and followed exactly."""

REFUSED = [
    {"const": -9_223_372_036_854_775_808},
    {"const": -9_223_372_036_854_775_809},
    {"enum": [{"a": [10**19]}]},
    {"const": 9_007_199_254_740_993},
    {"const": 123456789.12345679},
    {**_DIGIT, "minimum": -(10**20)},
    {"type": "integer", "minimum": 10**20, "maximum": 10**20 + 3},
    {"type": "integer", "multipleOf": 10**20},
    {"type": "number", "maximum": 1e300},
    {**_DIGIT, "not": {"type": "integer"}},
    {**_DIGIT, "not": {"type": "number", "title": "any"}},
    {"oneOf": [{"const": 1}, {"const": 1.0}]},
    {"oneOf": [{"const": {"a": 1}}, {"const": {"a": 1.0}}]},
    {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 3}]},
    {"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 1},
    {**_SHORT, "uniqueItems": True},
    {**_SHORT, "contains": {"const": 1}},
    {"not": {"type": "string"}},
    {"not": {}},
    {**_DIGIT, "if": {"maximum": 3}, "then": {"minimum": 2}},
    {"type": "object", "propertyNames": {"pattern": "^a"}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"type": "object", "minProperties": 2},
    {**_NAMED, "minProperties": 3},
    {"type": "object", "patternProperties": {"^x": {}}, "minProperties": 2},
    {"$ref": "#/x-mine", "x-mine": {"minProperties": 2}},
    {"$ref": "#/default", "default": {"minProperties": 2}},
    {"allOf": [{"$ref": "#/$defs/d"}], "$defs": {"d": {"minProperties": 2, "type": "object"}}},
    {"allOf": [{"type": "object"}], "unevaluatedProperties": False},
    {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    {**_NAMED, "properties": {"a": {"const": "\x7f"}}},
    {"enum": []},
    {"type": "string", "minLength": "x"},
    {"required": 5, "dependentRequired": {"a": ["b"]}},
    {"const": "\ud800"},
    {"$defs": {"p": {"allOf": [{"$ref": "#/$defs/p"}, {"pattern": "x"}]}}, "$ref": "#/$defs/p"},
]


@pytest.mark.parametrize("schema", TRIVIAL, ids=lambda schema: json.dumps(schema)[:70])
def test_what_can_be_followed_is_and_what_is_made_matches(schema: dict[str, Any]) -> None:
    grammar = GRAMMARS.compile(constraint(json_schema=json.dumps(schema)))
    for seed in range(6):
        bench = Bench(rows=1, context=300)
        sampling = Sampling(temperature=2.0, seed=seed, min_p=0.0)
        _, heard = bench.add(greedy("a", 250, grammar=grammar, sampling=sampling))
        bench.run()
        assert heard.error is None
        if heard.finish[0].reason is FinishReason.STOP:
            assert valid(json.loads(heard.text[0]), schema), heard.text[0]


@pytest.mark.parametrize("schema", REFUSED, ids=lambda schema: json.dumps(schema)[:70])
def test_what_can_not_is_refused_by_its_field(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        GRAMMARS.compile(constraint(json_schema=json.dumps(schema)))
    [violation] = refused.value.violations
    assert (violation.field, refused.value.reason) == ("constraint.json_schema", "CONSTRAINT_INVALID")
    assert violation.description


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "object", "minProperties": 1}, "{}"),
        ({**_NAMED, "minProperties": 2}, '{"a": 1, "a": 1}'),
        ({**_NAMED, "minProperties": 2}, '{"a": 1}'),
        (_NAMED, '{"a": 1, "a": "x"}'),
        (_NAMED, '{"a": 1, "\\u0061": "x"}'),
        ({**_NAMED, "required": []}, '{"\\u0061": "x"}'),
        ({"type": "object", "properties": {"a\n": _DIGIT}}, '{"a\\u000a": "x"}'),
        ({"type": "object", "maxProperties": 1}, '{"a": 1, "b": 1}'),
    ],
)
def test_a_name_that_comes_twice_satisfies_nothing(schema: dict[str, Any], text: str) -> None:
    matcher = GRAMMARS.compile(constraint(json_schema=json.dumps(schema))).matcher()
    for letter in text:
        if not matcher.allowed()[ord(letter)]:
            return
        matcher.take(ord(letter))
    assert not matcher.complete
    assert not matcher.allowed()[END]


@pytest.mark.parametrize("text", ["NaN", '{"const": NaN}', '{"maximum": Infinity}', '{"minimum": -Infinity}'])
def test_numbers_that_json_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        constraint(json_schema=text)


def _many(count: int) -> list[dict[str, Any]]:
    return [{"type": "string", "pattern": f"(a|b){{0,{20 + number}}}c"} for number in range(count)]


GREEDY = {
    "one after the other": {"allOf": _many(60)},
    "by references": {"$defs": {"p": {"allOf": _many(6)}}, "allOf": [{"$ref": "#/$defs/p"}] * 10},
    "by a chain of references": {
        "$defs": {f"p{number}": {**_many(1)[0], "$ref": f"#/$defs/p{number + 1}"} for number in range(60)}
        | {"p60": {"type": "string"}},
        "$ref": "#/$defs/p0",
    },
    "doubled again and again": {
        "$defs": {f"p{number}": {"allOf": [{"$ref": f"#/$defs/p{number + 1}"}] * 2} for number in range(30)}
        | {"p30": _many(1)[0]},
        "$ref": "#/$defs/p0",
    },
    "of a property": {"allOf": [{"type": "object", "properties": {"x": each}} for each in _many(40)]},
    "of items": {"allOf": [{"type": "array", "items": each} for each in _many(40)]},
    "inside": {"type": "object", "properties": {"x": {"items": {"anyOf": [{"allOf": _many(40)}]}}}},
    "with formats": {"allOf": [{"format": "uri", **_many(1)[0]}] * 30},
}
"""What takes the library gigabytes, and the process with it."""


@pytest.mark.parametrize("name", GREEDY)
def test_patterns_that_double_its_memory_are_refused_before(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        GRAMMARS.compile(constraint(json_schema=json.dumps(GREEDY[name])))
    assert "patterns and formats" in refused.value.violations[0].description


def test_as_many_as_are_allowed_are_decided_soon() -> None:
    with pytest.raises(InvalidArgument):
        GRAMMARS.compile(constraint(json_schema=json.dumps({"allOf": _many(8)})))
    GRAMMARS.compile(constraint(json_schema=json.dumps({"allOf": _many(3)})))


OPTIONS = {
    "a long common beginning": ["x" * 90 + f"{number:03}" for number in range(256)],
    "as long as can be": ["x" * 1_020 + f"{number:03}" for number in range(256)],
    "each the next one's beginning": ["y" * (number + 1) for number in range(256)],
    "nothing in common": [f"{number:03}" + "z" * 1_000 for number in range(256)],
    "a control character": ["a\x7fb", "a\x01b", "\x7f"],
    "quotes and escapes": ['"', "\\", '\\"', "\\x7f", "\n"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_within_the_documented_range_work(name: str) -> None:
    options = OPTIONS[name]
    choices = GRAMMARS.compile(constraint(choice={"options": options}))
    for option in (options[0], options[len(options) // 2], options[-1]):
        matcher = choices.matcher()
        for letter in option:
            assert matcher.allowed()[ord(letter)]
            matcher.take(ord(letter))
        assert matcher.complete or matcher.allowed()[END]
        if not matcher.complete:
            matcher.take(END)
            assert matcher.complete


def test_nothing_but_an_option_comes_of_a_choice() -> None:
    matcher = GRAMMARS.compile(constraint(choice={"options": ["ab", "abc", "xb"]})).matcher()
    assert set(matcher.allowed().nonzero()[0]) == {ord("a"), ord("x")}
    matcher.take(ord("a"))
    assert set(matcher.allowed().nonzero()[0]) == {ord("b")}
    matcher.take(ord("b"))
    assert set(matcher.allowed().nonzero()[0]) == {ord("c"), END}
    with pytest.raises(InvalidArgument):
        matcher.take(ord("x"))


def test_a_vocabulary_that_can_not_spell_an_option_says_so() -> None:
    with pytest.raises(InvalidArgument) as refused:
        GRAMMARS.compile(constraint(choice={"options": ["é"]}))
    assert refused.value.violations[0].field == "constraint.choice"


# JSON Schema 2020-12, as far as the schemas above have it, and what older drafts call otherwise.


def valid(value: Any, schema: Any, root: Any = None) -> bool:
    """Whether a value matches a schema."""
    if isinstance(schema, bool):
        return schema
    whole = schema if root is None else root
    return all(_checks(value, schema, whole))


def _checks(value: Any, schema: dict[str, Any], root: Any) -> Iterator[bool]:
    if "$ref" in schema:
        found = root
        for step in schema["$ref"][2:].split("/"):
            found = found[step]
        yield valid(value, found, root)
    yield "type" not in schema or any(map(_is(value), _list(schema["type"])))
    yield "const" not in schema or _same(value, schema["const"])
    yield "enum" not in schema or any(_same(value, each) for each in schema["enum"])
    yield all(valid(value, each, root) for each in schema.get("allOf", ()))
    yield "anyOf" not in schema or any(valid(value, each, root) for each in schema["anyOf"])
    yield "oneOf" not in schema or sum(valid(value, each, root) for each in schema["oneOf"]) == 1
    yield "not" not in schema or not valid(value, schema["not"], root)
    if "if" in schema:
        yield valid(value, schema.get("then" if valid(value, schema["if"], root) else "else", True), root)
    if isinstance(value, str):
        yield schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
        yield re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        yield schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)
    if isinstance(value, list):
        yield from _items(value, schema, root)
    if isinstance(value, dict):
        yield from _members(value, schema, root)


def _items(value: list[Any], schema: dict[str, Any], root: Any) -> Iterator[bool]:
    fixed = schema.get("prefixItems", ())
    rest = schema.get("items", schema.get("unevaluatedItems", True))
    yield schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
    yield all(valid(each, inner, root) for each, inner in zip(value, fixed, strict=False))
    yield all(valid(each, rest, root) for each in value[len(fixed) :])
    yield not schema.get("uniqueItems") or len({json.dumps(each) for each in value}) == len(value)
    if "contains" in schema:
        found = sum(valid(each, schema["contains"], root) for each in value)
        yield schema.get("minContains", 1) <= found <= schema.get("maxContains", math.inf)


def _members(value: dict[str, Any], schema: dict[str, Any], root: Any) -> Iterator[bool]:
    named = schema.get("properties", {})
    rest = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
    yield schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf)
    yield all(name in value for name in schema.get("required", ()))
    yield all(valid(each, named.get(name, rest), root) for name, each in value.items())
    yield all(valid(name, schema.get("propertyNames", True), root) for name in value)
    for kind in ("dependentRequired", "dependentSchemas", "dependencies"):
        for name, inner in schema.get(kind, {}).items():
            held = all(each in value for each in inner) if isinstance(inner, list) else valid(value, inner, root)
            yield name not in value or held


def _list(kinds: Any) -> list[str]:
    return kinds if isinstance(kinds, list) else [kinds]


def _is(value: Any) -> Any:
    kinds: dict[str, Any] = {
        "string": str,
        "array": list,
        "object": dict,
        "null": type(None),
        "boolean": bool,
        "number": int | float,
    }

    def kind(name: str) -> bool:
        if name == "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, kinds[name]) and (name != "number" or not isinstance(value, bool))

    return kind


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
