"""`meshgate classify` without a gateway: which text goes with which, what is asked for, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from meshgate.cli.connection import Connection
from meshgate.v1 import classification_pb2 as pb
from tests.unit.meshgate.cli.test_main import run


class Wire:
    """A channel that gives one reply and keeps what was asked."""

    def __init__(self) -> None:
        self.asked = pb.ClassifyRequest()
        self.reply = pb.ClassifyResponse()

    def unary_unary(self, *_: object, **__: object) -> Callable[..., pb.ClassifyResponse]:
        def call(request: pb.ClassifyRequest, timeout: float) -> pb.ClassifyResponse:
            self.asked = request
            return self.reply

        return call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: None  # the stub's other methods


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    monkeypatch.setattr(Connection, "channel", lambda _, *, sealed: nullcontext(made))
    return made


def labelled(*results: dict[str, float]) -> pb.ClassifyResponse:
    """A reply with these labels, a dictionary for each input."""
    made = [
        pb.Classification(labels=[pb.LabelScore(label=label, score=score) for label, score in each.items()])
        for each in results
    ]
    return pb.ClassifyResponse(results=made)


def tagged(*results: list[tuple[str, float, int, int]]) -> pb.ClassifyResponse:
    """A reply with these spans."""
    made = [
        pb.Classification(
            spans=[pb.LabelledSpan(label=label, score=score, start=start, end=end) for label, score, start, end in each]
        )
        for each in results
    ]
    return pb.ClassifyResponse(results=made)


def cells(stdout: str) -> list[list[str]]:
    """The rows below the heading, cell by cell."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "pairs"),
    [
        (("a", "b"), [("a", ""), ("b", "")]),
        (("a", "b", "--pair", "x"), [("a", "x"), ("b", "x")]),
        (("a", "--pair", "x", "--pair", "y"), [("a", "x"), ("a", "y")]),
        (("a", "b", "--pair", "x", "--pair", "y"), [("a", "x"), ("b", "y")]),
        (("question", "--pair-file", "two"), [("question", "x"), ("question", "y")]),
        (("--file", "two", "--pair-file", "two"), [("x", "x"), ("y", "y")]),
    ],
)
def test_which_goes_with_which(
    tmp_path: Path, wire: Wire, arguments: tuple[str, ...], pairs: list[tuple[str, str]]
) -> None:
    (tmp_path / "two").write_text("x\ny\n")
    wire.reply = labelled(*({"a": 1.0} for _ in pairs))
    result = run("classify", *(str(tmp_path / "two") if each == "two" else each for each in arguments))
    assert result.exit_code == 0, result.output
    assert [(item.text, item.text_pair) for item in wire.asked.inputs] == pairs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "b", "c", "--pair", "x", "--pair", "y"), "3 texts and 2 second ones"),
        (("--pair", "x"), "a text, or --file with one, is required"),
        (("a", "--pair-file", "empty"), "1 texts and 0 second ones"),
        (("--file", "gap", "--pair", "x"), "line 2 is blank"),
        (("a", "--pair-file", "gap"), "line 2 is blank"),
        (("a", "--top-k", "-1"), "--top-k: must be a whole number"),
    ],
)
def test_what_cant_be_said_is_refused_before_it_is_sent(
    tmp_path: Path, wire: Wire, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "gap").write_text("x\n\ny\n")
    result = run("classify", *(str(tmp_path / each) if each in ("empty", "gap") else each for each in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not wire.asked.inputs


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ((), pb.ClassifyOptions()),
        (("--top-k", "2"), pb.ClassifyOptions(top_k=2)),
        (("--scores", "raw"), pb.ClassifyOptions(score_function=pb.SCORE_FUNCTION_NONE)),
        (("--scores", "sigmoid"), pb.ClassifyOptions(score_function=pb.SCORE_FUNCTION_SIGMOID)),
        (("--scores", "softmax"), pb.ClassifyOptions(score_function=pb.SCORE_FUNCTION_SOFTMAX)),
        (("--truncate",), pb.ClassifyOptions(truncate=True)),
        (("--token-grouping", "spans"), pb.ClassifyOptions(token_grouping=pb.TOKEN_GROUPING_SPANS)),
        (("--token-grouping", "words"), pb.ClassifyOptions(token_grouping=pb.TOKEN_GROUPING_WORDS)),
        (("--token-grouping", "tokens"), pb.ClassifyOptions(token_grouping=pb.TOKEN_GROUPING_TOKENS)),
    ],
)
def test_what_is_asked_for(wire: Wire, flags: tuple[str, ...], options: pb.ClassifyOptions) -> None:
    wire.reply = labelled({"a": 1.0})
    assert run("classify", "x", *flags).exit_code == 0
    assert wire.asked.options == options


def test_a_table_of_pairs_shows_both_and_raw_scores(wire: Wire) -> None:
    wire.reply = labelled({"relevance": -3.25}, {"relevance": 7.5})
    result = run("classify", "question", "--pair", "one", "--pair", "other", "--scores", "raw")
    assert cells(result.stdout) == [
        ["question", "one", "relevance", "relevance -3.250"],
        ["question", "other", "relevance", "relevance 7.500"],
    ]


def test_a_table_of_spans_has_a_row_for_each_in_characters(wire: Wire) -> None:
    wire.reply = tagged([("PER", 0.99, 0, 4), ("LOC", 0.5, 14, 18)], [])
    result = run("classify", "Zoë👩 lives in Köln", "nobody")
    assert cells(result.stdout) == [
        ["Zoë👩 lives in Köln", "Zoë👩", "PER", "0.990", "0", "4"],
        ["Zoë👩 lives in Köln", "Köln", "LOC", "0.500", "14", "18"],
        ["nobody"],
    ]


def test_json_says_where_a_span_begins_even_at_the_start(wire: Wire) -> None:
    wire.reply = tagged([("PER", 0.5, 0, 3)])
    said = json.loads(run("classify", "Ann", "--json").stdout)
    assert said["results"][0]["spans"] == [{"label": "PER", "score": 0.5, "start": 0, "end": 3}]
