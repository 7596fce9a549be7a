"""`meshgate generate`: what it prints, from where it reads, and what it says of answers that were cut."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from meshgate.cli.commands import generate
from meshgate.cli.connection import Connection
from meshgate.cli.main import app
from meshgate.cli.screen import output
from meshgate.v1 import generation_pb2 as pb


class Channel:
    """Answers Generate and GenerateStream with one candidate each of those asked for."""

    def __init__(self, finish: pb.FinishReason.ValueType) -> None:
        self.requests: list[pb.GenerateRequest] = []
        self._finish = pb.Finish(reason=finish)

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None: ...

    def unary_unary(self, method: str, *_: object, **__: object) -> object:
        return self._whole

    def unary_stream(self, method: str, *_: object, **__: object) -> object:
        return self._streamed

    def _whole(self, request: pb.GenerateRequest, timeout: float) -> pb.GenerateResponse:
        self.requests.append(request)
        places = range(max(1, request.candidate_count))
        made = [pb.Candidate(index=at, text=f" text{at}", finish=self._finish) for at in places]
        return pb.GenerateResponse(candidates=made)

    def _streamed(self, request: pb.GenerateStreamRequest, timeout: float) -> list[pb.GenerateStreamResponse]:
        whole = self._whole(request.request, timeout).candidates
        deltas = [pb.CandidateDelta(index=each.index, text=each.text, finish=each.finish) for each in whole]
        return [pb.GenerateStreamResponse(deltas=[delta]) for delta in deltas]


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    made = Channel(pb.FINISH_REASON_STOP)
    monkeypatch.setattr(Connection, "channel", lambda *_, **__: made)
    return made


def run(*arguments: str, said: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["generate", *arguments], input=said)


@pytest.mark.parametrize("stream", [(), ("--stream",), ("--no-stream",)])
@pytest.mark.parametrize("echo", [(), ("--echo",), ("--no-echo",)])
@pytest.mark.parametrize("count", [1, 2])
def test_the_prompt_stands_before_each_answer_unless_it_is_left_out(
    channel: Channel, stream: tuple[str, ...], echo: tuple[str, ...], count: int
) -> None:
    done = run("Gravity is", "-n", str(count), *stream, *echo)
    before = "" if "--no-echo" in echo else "Gravity is"
    expected = [f"{before} text{at}" for at in range(count)]
    shown = [line for line in done.stdout.splitlines() if not line.startswith("---")]
    assert (done.exit_code, shown) == (0, expected)


@pytest.mark.parametrize("said", [b"from a pipe\n", b"from a pipe\r\n", b"from a pipe"])
def test_a_dash_reads_standard_input(channel: Channel, said: bytes) -> None:
    assert run("-", said=said).stdout == "from a pipe text0\n"
    assert channel.requests[0].prompt == "from a pipe"


def test_what_else_a_prompt_has_is_kept(channel: Channel) -> None:
    run("-", said=b"two\nlines \n\n")
    assert channel.requests[0].prompt == "two\nlines \n"


@pytest.mark.parametrize(
    ("said", "told"),
    [(b"", "standard input is empty"), (b"\n", "standard input is empty"), (b"\xff", "not valid UTF-8")],
)
def test_a_dash_without_a_text_is_an_error(channel: Channel, said: bytes, told: str) -> None:
    done = run("-", said=said)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert channel.requests == []


def test_too_much_on_standard_input_is_not_read_on(channel: Channel) -> None:
    done = run("-", said=b"x" * (1_048_576 + 1))
    assert (done.exit_code, channel.requests) == (2, [])
    assert "more than 1,048,576 bytes" in done.stderr


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
@pytest.mark.parametrize(
    ("reason", "flags", "told"),
    [
        (pb.FINISH_REASON_STOP, (), ""),
        (pb.FINISH_REASON_LENGTH, (), "--max-tokens asks for more"),
        (pb.FINISH_REASON_LENGTH, ("--max-tokens", "5"), ""),
        (pb.FINISH_REASON_BUDGET, ("--max-tokens", "5"), "your tokens of this minute are used up"),
        (pb.FINISH_REASON_CANCELLED, (), "--deadline allows more time"),
    ],
)
def test_an_answer_that_was_cut_says_so(
    monkeypatch: pytest.MonkeyPatch, stream: str, reason: pb.FinishReason.ValueType, flags: tuple[str, ...], told: str
) -> None:
    made = Channel(reason)
    monkeypatch.setattr(Connection, "channel", lambda *_, **__: made)
    done = run("x", stream, "-n", "2", *flags)
    assert told in done.stderr
    assert done.stderr.count("\n") == (1 if told else 0)


def test_a_terminal_gets_the_text_as_it_is_made(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(generate, "_print_stream", lambda *_: taken.append("stream"))
    monkeypatch.setattr(generate, "_print_whole", lambda *_: taken.append("whole"))
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    for flags in ((), ("--json",), ("--stream",), ("--no-stream",), ("--stream", "--json")):
        run("x", *flags)
    assert taken == ["stream", "whole", "stream", "whole", "stream"]


def test_an_empty_schema_is_an_error(channel: Channel, tmp_path: object) -> None:
    done = run("x", "--json-schema", "/dev/null")
    assert (done.exit_code, channel.requests) == (2, [])
    assert "/dev/null: is empty" in done.stderr
