"""What a server refuses is named as its giver knows it: the line of a file, not a place in some message."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgate import errors
from meshgate.cli import failures
from meshgate.cli.files import text_lines
from meshgate.cli.options import TRUNCATING
from meshgate.cli.screen import input_names
from meshgate.client import CallFailed


@pytest.mark.parametrize("shape", [lambda error: error, CallFailed], ids=["MeshError", "RpcError"])
@pytest.mark.parametrize("field", ["inputs[57]", "request.inputs[57]", "inputs[57].text"])
def test_it_is_the_lines_number_with_a_way_out(tmp_path: Path, shape: type[Exception], field: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("".join("line\n\n" for number in range(60)))
    inputs = text_lines.inputs(None, file)
    raised = errors.InvalidArgument.of(field, "600 tokens are too many", reason="INPUT_TOO_LONG")
    with pytest.raises(errors.InvalidArgument) as caught, input_names.named(lambda at: inputs[at].name, TRUNCATING):
        raise shape(raised)
    line, _ = failures.explain(caught.value)
    told = f"meshgate: INPUT_TOO_LONG: {file}: line 115: 600 tokens are too many; --truncate cuts it at the end"
    assert line == told


def test_other_errors_pass_as_they_are() -> None:
    for raised in (errors.NotFound("no such model"), ValueError("x"), errors.InvalidArgument("no fields")):
        with pytest.raises(type(raised)) as caught, input_names.named(str):
            raise raised
        assert caught.value is raised


def test_a_field_that_is_no_input_keeps_its_name() -> None:
    with pytest.raises(errors.InvalidArgument) as caught, input_names.named(str):
        raise errors.InvalidArgument.of("options.dimensions", "must be from 1 to 384")
    assert caught.value.violations[0].field == "options.dimensions"


def test_texts_of_the_command_line_come_first_and_are_counted_from_one(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("a\r\n\n \nb\u2028c\n")
    found = text_lines.inputs(["one", "two"], file)
    assert [each.name for each in found] == ["text 1", "text 2", f"{file}: line 1", f"{file}: line 4"]
    assert [each.text for each in found] == ["one", "two", "a", "b\u2028c"]


@pytest.mark.parametrize("content", ["", "\n\n", "  \n\t\r\n"])
def test_a_file_without_a_text_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x"
    file.write_text(content)
    with pytest.raises(failures.UsageError, match="x: no text in it; one on each line is required"):
        text_lines.inputs(["also one"], file)
