"""`meshgate classify` through a real gateway: pairs, the best labels, raw scores, and parts of a text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meshgate.cli.main import app as cli
from services.classification.app import App
from tests.support.fixtures.classification_service import build, configured
from tests.support.network.mesh import mesh

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    (tmp_path / "models").mkdir()
    app = App(configured(build(tmp_path / "models"), tmp_path))
    async with mesh(tmp_path, {"classification": app}) as made:
        access = ("--target", made.target, "--ca", str(tmp_path / "certs" / "ca.pem"), "--token", made.token())

        async def invoke(*arguments: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, cli, (*access, "classify", *arguments))

        yield invoke


async def test_pairs_labels_and_spans(run: Run) -> None:
    alone, paired = (
        await run("a query", "--model", "reranker", "--json"),
        await run("a query", "--pair", "this", "--pair", "that", "--model", "reranker", "--scores", "raw", "--json"),
    )
    (one,) = json.loads(alone.stdout)["results"]
    this, that = (each["labels"][0]["score"] for each in json.loads(paired.stdout)["results"])
    assert 0 <= one["labels"][0]["score"] <= 1
    assert this != that

    best = json.loads((await run("text", "--model", "colour", "--top-k", "1", "--json")).stdout)
    assert len(best["results"][0]["labels"]) == 1

    text = "abc de f 10 x y z"
    tagged = json.loads((await run(text, "--model", "tagger", "--json")).stdout)["results"][0]
    table = (await run(text, "--model", "tagger")).stdout.splitlines()
    assert len(table) == 1 + len(tagged["spans"]) > 1
    for line, span in zip(table[1:], tagged["spans"], strict=True):
        place = [str(span["start"]), str(span["end"])]
        assert (text[span["start"] : span["end"]] in line, line.split()[-2:]) == (True, place)

    words = json.loads((await run(text, "--model", "tagger", "--token-grouping", "words", "--json")).stdout)["results"][
        0
    ]
    assert [text[each["start"] : each["end"]] for each in words["spans"]] == text.split()

    refused = await run("x", "--pair", "y", "--model", "tagger")
    assert (refused.exit_code, "text 1, its second text: this model takes one text" in refused.stderr) == (1, True)


async def test_a_text_that_is_too_long_is_refused_or_cut(run: Run) -> None:
    text = " ".join("a" * 100)
    refused, cut = await run(text, "--model", "colour"), await run(text, "--model", "colour", "--truncate", "--json")
    assert (refused.exit_code, "text 1: " in refused.stderr and "; --truncate cuts it" in refused.stderr) == (1, True)
    (result,) = json.loads(cut.stdout)["results"]
    assert (result["truncated"], result["tokens"]) == (True, 64)


async def test_labels_of_a_sealed_call_find_their_model(run: Run) -> None:
    done = await run("x", "--labels", "a,b", "--sealed", "--json")
    assert (done.exit_code, len(json.loads(done.stdout)["results"][0]["labels"])) == (0, 2)


@pytest.mark.parametrize(
    ("labels", "told"),
    [("", "--labels: it is empty"), (" ", "--labels: it is empty"), ("a,,b", "label 2 is empty"), ("a,", "label 2 is")],
)
async def test_labels_that_are_empty_are_an_error(run: Run, labels: str, told: str) -> None:
    done = await run("x", "--labels", labels)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
