"""What commands print: candidates one after the other, and nothing that a terminal would obey."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate import terminal
from meshgate.cli.commands.generate import in_turn
from meshgate.cli.screen import output
from meshgate.v1 import generation_pb2 as pb


def delta(index: int, text: str, ended: bool = False) -> pb.GenerateStreamResponse:
    finish = pb.Finish(reason=pb.FINISH_REASON_STOP) if ended else None
    return pb.GenerateStreamResponse(deltas=[pb.CandidateDelta(index=index, text=text, finish=finish)])


def test_one_candidate_is_shown_as_it_is_made() -> None:
    source = iter([delta(0, "a"), delta(0, "b"), delta(0, "c", ended=True)])
    shown = in_turn(source, 1)
    assert next(shown) == "a"
    assert next(source).deltas[0].text == "b"  # the second was not waited for
    assert "".join(shown) == "c"


def test_several_are_shown_one_after_the_other() -> None:
    replies = [delta(1, "x"), delta(0, "a"), delta(1, "y", ended=True), delta(0, "b", ended=True)]
    assert "".join(in_turn(replies, 2)) == "--- 1 ---\nab\n--- 2 ---\nxy"


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=3)), max_size=30), st.permutations(range(4)))
def test_nothing_is_lost_in_whatever_order_it_comes(pieces: list[tuple[int, str]], ends: list[int]) -> None:
    texts = ["".join(text for at, text in pieces if at == index) for index in range(4)]
    replies = [delta(at, text) for at, text in pieces] + [delta(at, "", ended=True) for at in ends]
    expected = "\n".join(f"--- {index + 1} ---\n{text}" for index, text in enumerate(texts))
    assert "".join(in_turn(replies, 4)) == expected


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    shown = terminal.escaped(text)
    assert not any((ord(each) < 32 and each not in "\n\t") or 127 <= ord(each) < 160 for each in shown)


def test_what_people_write_is_left_alone() -> None:
    for text in ("你好，世界！", "👩\u200d👩\u200d👧", "नमस्ते\n\t", "é"):
        assert terminal.escaped(text) == text


def test_cells_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("text",), [("[bold]x[/] [/]",)])
    assert "[bold]x[/] [/]" in capsys.readouterr().out


def test_a_table_that_is_no_terminals_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [("x" * 200, "y" * 200)])
    assert f"{'x' * 200}  {'y' * 200}" in capsys.readouterr().out


def test_a_long_text_is_cut_and_kept_on_one_line() -> None:
    assert output.short("a\nb") == "a b"
    assert len(output.short("x" * 100)) == 40
