"""The prose linter finds what a reader would have to read twice, and leaves code and quotations alone."""

from pathlib import Path

import pytest

from tools.prose import proselint, rules
from tools.prose.blocks import Block, blocks


def advice(text: str) -> list[str]:
    return [line for sentence in rules.sentences(text) for line in rules.broken(sentence)]


@pytest.mark.parametrize(
    "text",
    [
        "Who owes is refused until it has come back.",
        "What the store did not confirm is not sent again.",
        "The budget is charged; who owes is refused.",
        "The caller is told which reason it was.",
        "The call waits for a place.",
        "Nobody reads the prompt.",
        "The gateway lets in the caller.",
        "A stranger gets no answer.",
        "The service reads the prompt again.",
        "The tenant has a purse of tokens.",
        "Every method that there is is registered.",
        "The color of the normalized text.",
        " ".join(f"w{number}" for number in range(31)) + ".",
    ],
)
def test_the_old_dialect_is_found(text: str) -> None:
    assert advice(text)


@pytest.mark.parametrize(
    "text",
    [
        "What does SEAL_REPLAYED mean?",
        "The gateway reserves one token per byte.",
        "The caller is refused until the balance has refilled.",
        "The size of the batch is seized by tokenizers and the Authorization header.",
        "A call takes place, and its parts stay in one place.",
        " ".join(f"w{number}" for number in range(30)) + ".",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not advice(text)


def test_pages_are_read_without_their_code_headings_and_addresses(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# What it costs\n\nOne\nparagraph with `nobody` in [code](nobody.md).\n\n```\nnobody\n```\n\n"
        "- an item\n  of two lines\n- another\n\n| a cell | another |\n| --- | --- |\n",
        encoding="utf-8",
    )
    assert list(blocks(page)) == [
        Block(3, "One paragraph with CODE in code."),
        Block(10, "an item of two lines"),
        Block(12, "another"),
        Block(14, "a cell"),
        Block(14, "another"),
    ]


def test_docstrings_those_of_constants_and_comments_are_read_and_examples_are_not(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""First.\n\n    nobody()\n\nLast\nline.\n"""\n\nA = 1\n"""A constant."""\n\n# A comment\n# goes on.\n'
        "B = 2  # noqa: X\n",
        encoding="utf-8",
    )
    assert list(blocks(module)) == [
        Block(1, "First."),
        Block(5, "Last line."),
        Block(10, "A constant."),
        Block(12, "A comment goes on."),
    ]


def test_comments_of_protos_are_read(tmp_path: Path) -> None:
    proto = tmp_path / "a.proto"
    proto.write_text("// A method\n// of two lines.\nrpc A(B) returns (C);\n", encoding="utf-8")
    assert list(blocks(proto)) == [Block(1, "A method of two lines.")]


def test_proselint_names_the_line_of_the_block() -> None:
    found = proselint.found("page", [Block(3, "The gateway runs."), Block(7, "It works at this point in time.")])
    assert [line for line, _ in found] == [7]
