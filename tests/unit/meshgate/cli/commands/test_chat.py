"""A chat remembers what was said; Ctrl-C ends an answer, not the talk; errors at a terminal are told and forgiven."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

from meshgate import errors
from meshgate.cli.commands.chat import Chat
from meshgate.cli.commands.conversation import Talk
from meshgate.client import CallFailed
from meshgate.v1 import generation_pb2 as pb


class Stream:
    """Replies, each a text or an error."""

    def __init__(self, pieces: Iterable[str | BaseException]) -> None:
        self._pieces = pieces
        self.cancelled = False

    def __iter__(self) -> Iterator[pb.GenerateStreamResponse]:
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield pb.GenerateStreamResponse(deltas=[pb.CandidateDelta(text=piece)])

    def cancel(self) -> None:
        self.cancelled = True


class Model:
    """Gives the answers it was told to, in order, and remembers what it was sent."""

    def __init__(self, *answers: Iterable[str | BaseException]) -> None:
        self._answers = iter(answers)
        self.sent: list[list[tuple[str, str]]] = []
        self.streams: list[Stream] = []

    def __call__(self, talk: Talk) -> Stream:
        self.sent.append(list(talk.turns))
        self.streams.append(Stream(next(self._answers)))
        return self.streams[-1]


def chat(model: Model, lines: list[str], forgive: Callable[[Exception], None] | None = None, system: str = "") -> None:
    Chat(Talk(system), model, forgive=forgive).run(lines)


def unforgiven(error: Exception) -> None:
    raise AssertionError from error


def test_each_question_takes_along_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(["Hel", "lo"], ["Again"])
    chat(model, ["hi\n", "\n", "more\n"], system="be brief")
    assert model.sent[1] == [("system", "be brief"), ("user", "hi"), ("assistant", "Hello"), ("user", "more")]
    assert capsys.readouterr().out == "Hello\nAgain\n"


def test_exit_leaves_and_clear_begins_anew() -> None:
    model = Model(["a"], ["b"])
    chat(model, ["x", "/clear", "y", "/exit", "z"])
    assert model.sent == [[("user", "x")], [("user", "y")]]


def test_ctrl_c_ends_the_answer_and_keeps_what_was_said() -> None:
    model = Model(["par", KeyboardInterrupt()], ["b"])
    chat(model, ["x", "y"], forgive=unforgiven)
    assert model.streams[0].cancelled
    assert model.sent[1] == [("user", "x"), ("assistant", "par"), ("user", "y")]


def test_ctrl_c_before_the_first_word_takes_the_question_back() -> None:
    model = Model([KeyboardInterrupt()], ["b"])
    chat(model, ["x", "y"], forgive=unforgiven)
    assert model.sent[1] == [("user", "y")]


def test_at_a_terminal_an_error_is_told_and_the_talk_goes_on() -> None:
    told: list[Exception] = []
    overloaded = CallFailed(errors.Unavailable("x", reason="OVERLOADED"))
    model = Model([overloaded], ["b"])
    chat(model, ["x", "y"], forgive=told.append)
    assert told == [overloaded]
    assert model.sent[1] == [("user", "y")]


@pytest.mark.parametrize("error", [CallFailed(errors.Unavailable("x")), KeyboardInterrupt()])
def test_from_a_pipe_it_ends(error: BaseException) -> None:
    model = Model(["a", error], ["b"])
    with pytest.raises(type(error)):
        chat(model, ["x", "y"])
    assert len(model.sent) == 1
    assert model.streams[0].cancelled


def test_a_talk_that_outgrows_the_model_loses_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    too_long = CallFailed(errors.InvalidArgument("x", reason="INPUT_TOO_LONG"))
    model = Model(["a"], ["b"], [too_long], [too_long], ["c"])
    chat(model, ["1", "2", "3"], system="s")
    assert model.sent[-2] == [("system", "s"), ("user", "2"), ("assistant", "b"), ("user", "3")]
    assert model.sent[-1] == [("system", "s"), ("user", "3")]
    assert "forgotten" in capsys.readouterr().err


def test_a_question_that_is_too_long_by_itself_is_an_error() -> None:
    too_long = CallFailed(errors.InvalidArgument("x", reason="INPUT_TOO_LONG"))
    with pytest.raises(CallFailed):
        chat(Model([too_long]), ["1"])


def test_commands_are_not_said_to_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(["a"], ["b"])
    chat(model, ["/help", "/hlep", "/", "//etc/hosts is what?", "/two\n/lines"])
    assert model.sent == [
        [("user", "/etc/hosts is what?")],
        [("user", "/etc/hosts is what?"), ("assistant", "a"), ("user", "/two\n/lines")],
    ]
    said = capsys.readouterr().err
    assert "/clear   begins anew" in said
    assert "/hlep is no command: /help lists them, and //text sends /text" in said
