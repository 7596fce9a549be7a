"""Structured output: what is made matches, whatever the model wants to say; what can't be done is refused by name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshgate.errors import InvalidArgument
from meshgate.v1 import generation_pb2 as pb
from services.generation.constraints import Constraint, Grammars, read
from services.generation.engine.interface import FinishReason, Sampling
from services.generation.text.detokenise import TokenBytes
from tests.support.fixtures.generation import END, Bench, Heard, Letters, greedy

GRAMMARS = Grammars(TokenBytes(Letters()), frozenset((END,)), lambda text: list(text.encode()))
"""Of a vocabulary in which token n is the character n."""


def constraint(**kind: Any) -> Constraint:
    found = read(pb.Constraint(**kind))
    assert found is not None
    return found


def made(*, most: int = 60, sampling: Sampling | None = None, **kind: Any) -> Heard:
    """What a model that only counts makes under a constraint."""
    bench = Bench(context=256)
    grammar = GRAMMARS.compile(constraint(**kind))
    _, heard = bench.add(greedy("a", most, grammar=grammar, sampling=sampling or Sampling(temperature=0.0)))
    bench.run()
    assert heard.error is None
    return heard


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(5))
def test_a_schema(seed: int) -> None:
    heard = made(json_schema=json.dumps(PERSON), sampling=Sampling(temperature=2.0, seed=seed))
    assert heard.finish[0].reason is FinishReason.STOP
    person = json.loads(heard.text[0])
    assert set(person) == {"name", "age"}
    assert len(person["name"]) <= 5
    assert 0 <= person["age"] <= 150


@pytest.mark.parametrize("expression", ["[0-9]{3}-[0-9]{4}", "(ab|cd){2,3}!", "x", "a/b\nc"])
def test_an_expression(expression: str) -> None:
    heard = made(regex=expression, sampling=Sampling(temperature=2.0, seed=1))
    assert re.fullmatch(expression, heard.text[0])
    assert heard.finish[0].reason is FinishReason.STOP


@pytest.mark.parametrize("options", [["yes", "no"], ['"quoted"\n', "back\\slash", "a b"], ["ab", "abc"]])
def test_a_choice(options: Sequence[str]) -> None:
    for seed in range(4):
        heard = made(choice={"options": options}, sampling=Sampling(temperature=2.0, seed=seed))
        assert heard.text[0] in options


def test_what_is_complete_needs_no_end_token() -> None:
    heard = made(choice={"options": ["yes"]}, most=3)
    assert (heard.text[0], heard.finish[0].reason) == ("yes", FinishReason.STOP)
    assert END not in heard.tokens[0]


def test_what_is_cut_says_so() -> None:
    heard = made(regex="a{50}", most=10)
    assert (heard.text[0], heard.finish[0].reason) == ("a" * 10, FinishReason.LENGTH)


def test_rows_of_one_batch_follow_their_own_rules() -> None:
    bench = Bench()
    jobs = {
        "digits": greedy("a", 6, grammar=GRAMMARS.compile(constraint(regex="[0-9]{6}"))),
        "free": greedy("a", 6),
        "choice": greedy("a", 6, grammar=GRAMMARS.compile(constraint(choice={"options": ["no way"]}))),
    }
    heard = {name: bench.add(job)[1] for name, job in jobs.items()}
    bench.run()
    assert max(map(len, bench.model.batches)) == 3
    assert heard["free"].text[0] == "bcdefg"
    assert heard["choice"].text[0] == "no way"
    assert re.fullmatch("[0-9]{6}", heard["digits"].text[0])


def test_candidates_go_their_own_ways() -> None:
    bench = Bench()
    grammar = GRAMMARS.compile(constraint(regex="[a-z]{8}"))
    _, heard = bench.add(greedy("a", 20, grammar=grammar, candidates=3, sampling=Sampling(temperature=2.0, seed=3)))
    bench.run()
    assert all(re.fullmatch("[a-z]{8}", text) for text in heard.text.values())
    assert len(heard.text) == 3


def test_logprobs_are_of_what_is_allowed() -> None:
    bench = Bench()
    grammar = GRAMMARS.compile(constraint(choice={"options": ["x"]}))
    _, heard = bench.add(greedy("a", 3, grammar=grammar, logprobs=5))
    bench.run()
    [entry] = heard.steps[0][0].logprobs
    assert (entry.chosen.token, entry.chosen.logprob) == (b"x", 0.0)
    assert [each.token for each in entry.alternatives] == [b"x"]


def test_stop_sequences_count_too() -> None:
    bench = Bench()
    grammar = GRAMMARS.compile(constraint(regex="abcdef"))
    _, heard = bench.add(greedy("a", 20, grammar=grammar, stop=("cd",)))
    bench.run()
    assert (heard.text[0], heard.finish[0].stop_matched) == ("ab", "cd")


def test_a_grammar_is_made_once() -> None:
    first = GRAMMARS.compile(constraint(regex="q{7}"))
    assert GRAMMARS.compile(constraint(regex="q{7}")) is first


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ({"json_schema": ""}, "constraint.json_schema"),
        ({"json_schema": "{"}, "constraint.json_schema"),
        ({"json_schema": "[]"}, "constraint.json_schema"),
        ({"json_schema": "true"}, "constraint.json_schema"),
        ({"json_schema": " " * 65_537}, "constraint.json_schema"),
        ({"json_schema": '{"items":' * 70 + "{}" + "}" * 70}, "constraint.json_schema"),
        ({"json_schema": "[" * 30_000}, "constraint.json_schema"),
        ({"regex": ""}, "constraint.regex"),
        ({"regex": "x" * 4_097}, "constraint.regex"),
        ({"choice": {}}, "constraint.choice.options"),
        ({"choice": {"options": ["x"] * 257}}, "constraint.choice.options"),
        ({"choice": {"options": ["x", ""]}}, "constraint.choice.options[1]"),
        ({"choice": {"options": ["x" * 1_025]}}, "constraint.choice.options[0]"),
    ],
)
def test_what_is_out_of_range_is_named(kind: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        constraint(**kind)
    assert [each.field for each in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"json_schema": '{"type": "strin"}'}, "Invalid type"),
        ({"json_schema": '{"not": {"type": "string"}}'}, "Unimplemented keys"),
        ({"json_schema": '{"$ref": "http://example.com/schema"}'}, "not present"),
        ({"json_schema": '{"type": "string", "minLength": 5, "maxLength": 2}'}, "Unsatisfiable"),
        ({"json_schema": '{"$ref": "#"}'}, "nothing can match"),
        ({"regex": "("}, "unclosed group"),
        ({"regex": "(?=x)y"}, "look-around"),
        ({"regex": "[^\\x00-\\x{10FFFF}]"}, "nothing can match"),
        ({"regex": "(a{1000}){1000}"}, "too complex"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_reason(kind: dict[str, Any], said: str) -> None:
    [name] = kind
    began = time.monotonic()
    with pytest.raises(InvalidArgument) as refused:
        GRAMMARS.compile(constraint(**kind))
    assert time.monotonic() - began < 5  # bounded, not fast: the machine may be busy
    [violation] = refused.value.violations
    assert violation.field == f"constraint.{name}"
    assert said in violation.description
    assert "<state>" not in violation.description
    assert refused.value.reason == "CONSTRAINT_INVALID"


def test_one_that_gets_too_hard_fails_alone() -> None:
    class Failing:
        complete = False

        def matcher(self) -> Failing:
            return self

        def allowed(self) -> Any:
            raise InvalidArgument.of("constraint.regex", "too complex, or nothing can match it")

        def take(self, token: int) -> None:
            raise AssertionError

    bench = Bench()
    _, bad = bench.add(greedy("a", 5, grammar=Failing()))
    _, good = bench.add(greedy("a", 5))
    bench.run()
    assert isinstance(bad.error, InvalidArgument)
    assert good.text[0] == "bcdef"


def test_a_schema_cannot_loosen_our_rules() -> None:
    loose = {**PERSON, "x-guidance": {"whitespace_flexible": True}}
    assert constraint(json_schema=json.dumps(loose)) == constraint(json_schema=json.dumps(PERSON))


_LEAVES = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -5, "maximum": 99},
        {"type": "string", "maxLength": 3, "pattern": "^[a-z]*$"},
        {"enum": ["x", 1, None]},
    ]
)
_SCHEMAS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, inner)
        | st.builds(
            lambda members: {
                "type": "object",
                "properties": members,
                "required": sorted(members),
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(["a", "b c", 'q"']), inner, max_size=2),
        )
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(_SCHEMAS, st.integers(0, 1000))
def test_whatever_is_made_matches_its_schema(schema: dict[str, Any], seed: int) -> None:
    heard = made(json_schema=json.dumps(schema), most=200, sampling=Sampling(temperature=2.0, seed=seed))
    assert heard.finish[0].reason is FinishReason.STOP
    assert matches(json.loads(heard.text[0]), schema)


def matches(value: Any, schema: dict[str, Any]) -> bool:
    """As much of JSON Schema as the schemas here have."""
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return isinstance(value, int) and bool(schema["minimum"] <= value <= schema["maximum"])
        case "string":
            return isinstance(value, str) and re.fullmatch("[a-z]{0,3}", value) is not None
        case "array":
            return len(value) <= 2 and all(matches(each, schema["items"]) for each in value)
    return set(value) == set(schema["properties"]) and all(
        matches(value[name], inner) for name, inner in schema["properties"].items()
    )


def test_a_tokeniser_that_begins_with_a_space_does_not_keep_an_output_from_beginning_without() -> None:
    """As SentencePiece's do."""
    grammars = Grammars(TokenBytes(Letters()), frozenset((END,)), lambda text: list(f" {text}".encode()))
    matcher = grammars.compile(constraint(choice=pb.Choice(options=["red"]))).matcher()
    for letter in "red":
        assert matcher.allowed().nonzero()[0].tolist() == [ord(letter)]
        matcher.take(ord(letter))
    assert matcher.complete
