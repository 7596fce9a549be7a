"""`meshgate chat`: a conversation, on a terminal or from a pipe."""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import typer

from meshgate.cli import failures
from meshgate.cli.commands.conversation import Talk
from meshgate.cli.commands.generate import open_stream
from meshgate.cli.connection import Connection
from meshgate.cli.options import AsJson, MaxTokens, Model, Sealed, System, Temperature, unless_empty, whole
from meshgate.cli.screen import finish_reason, output, waiting

_HINT: Final = "/help lists what can be typed; Ctrl-C ends an answer, Ctrl-D the talk."
_HELP: Final = """\
/help    lists these
/clear   begins anew, with the same instructions
/exit    ends the talk, as Ctrl-D does
//text   sends /text to the model
Ctrl-C   ends an answer
Several lines that are pasted together are one question."""
_PASTE_SECONDS: Final = 0.05
"""How long what follows a pasted line may take to arrive."""
_FORGOTTEN: Final = "(The talk has outgrown the model: its oldest question and answer are forgotten.)"
_TOO_LONG: Final = "INPUT_TOO_LONG"


class Replies(Protocol):
    """A stream of GenerateStreamResponse."""

    def __iter__(self) -> Iterator[Any]: ...
    def cancel(self) -> object: ...


@dataclass(frozen=True)
class Chat:
    """Asks, shows the answer, and remembers both."""

    talk: Talk
    send: Callable[[Talk], Replies]
    """Raises, or gives a stream that raises, grpc.RpcError."""
    as_json: bool = False
    limited: bool = False
    """Whether the user said how long an answer may be."""
    forgive: Callable[[Exception], None] | None = None
    """Told of an error after which the talk goes on, as does one that Ctrl-C ended. None: both end it."""

    def run(self, lines: Iterable[str]) -> None:
        """Answers each line until there is no more, or /exit."""
        for line in lines:
            match line.strip():
                case "":
                    continue
                case "/exit":
                    return
                case "/clear":
                    self.talk.clear()
                case "/help":
                    output.note(_HELP)
                case said if said.startswith("/") and not said.startswith("//") and "\n" not in said:
                    output.note(f"{said.split()[0]} is no command: /help lists them, and //text sends /text")
                case said:
                    self._say(said[1:] if said.startswith("//") else said)

    def _say(self, said: str) -> None:
        self.talk.ask(said)
        made: list[str] = []
        try:
            self._hear(made)
        except KeyboardInterrupt:
            if self.forgive is None:
                raise
            output.text()
        except Exception as error:
            if self.forgive is None:
                raise
            self.forgive(error)
        finally:
            self.talk.answer("".join(made))

    def _hear(self, made: list[str]) -> None:
        """Shows an answer, and collects it in `made`. A talk too long for the model loses its beginning."""
        while True:
            try:
                self._show(self.send(self.talk), made)
            except Exception as error:
                if failures.reason(error) != _TOO_LONG or not self.talk.forget_oldest():
                    raise
                output.note(_FORGOTTEN)
            else:
                return

    def _show(self, replies: Replies, made: list[str]) -> None:
        ends: list[Any] = []
        try:
            for reply in waiting.until_first(replies, quiet=self.as_json):
                ends.extend(delta.finish for delta in reply.deltas if delta.HasField("finish"))
                made.extend(delta.text for delta in reply.deltas)
                if self.as_json:
                    output.json(reply, line=True)
                else:
                    output.text("".join(delta.text for delta in reply.deltas), newline=False, piece=True)
        finally:
            replies.cancel()  # of no effect once it has ended
        if not self.as_json:
            output.text()
            finish_reason.explain(ends, asked=self.limited)


def chat(
    ctx: typer.Context,
    system: System = "",
    model: Model = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    sealed: Sealed = False,
    as_json: AsJson = False,
) -> None:
    """Talk with a model. Ctrl-C ends an answer; Ctrl-D, or /exit, ends the talk."""
    from meshgate.v1 import generation_pb2 as pb

    connection: Connection = ctx.obj
    roles = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
    sampling = unless_empty(pb.Sampling(temperature=temperature))
    limit = whole("--max-tokens", max_tokens)
    with connection.channel(sealed=sealed) as channel:

        def send(talk: Talk) -> Replies:
            turns = pb.Conversation(messages=[pb.Message(role=roles[who], content=text) for who, text in talk.turns])
            request = pb.GenerateRequest(model=model, conversation=turns, sampling=sampling, max_output_tokens=limit)
            replies: Replies = open_stream(channel, request, connection.deadline)
            return replies

        if sys.stdin.isatty():
            output.note(_HINT)
            Chat(Talk(system), send, as_json, limit is not None, lambda error: _tell(error, connection)).run(typed())
        else:
            Chat(Talk(system), send, as_json, limit is not None).run(sys.stdin)


def typed() -> Iterator[str]:
    """What is typed, a question at a time; lines that are pasted together are one. Ctrl-C at the prompt drops what is
    there; Ctrl-D ends.
    """
    with contextlib.suppress(ImportError):
        import readline  # gives input() its history and editing

        readline.parse_and_bind("set enable-bracketed-paste on")
    while True:
        try:
            # Where the answers go to a file, the prompt must not.
            if not sys.stdout.isatty():
                typer.echo("> ", err=True, nl=False)
            yield "\n".join([input("> " if sys.stdout.isatty() else ""), *_pasted()])
        except KeyboardInterrupt:
            output.note("")
        except EOFError:
            output.note("")
            return


def _pasted() -> Iterator[str]:
    """The lines that came together with the one before: nobody types so fast."""
    while select.select([sys.stdin], [], [], _PASTE_SECONDS)[0]:
        try:
            yield input()
        except EOFError:  # Ctrl-D, which the next question will meet again
            return


def _tell(error: Exception, connection: Connection) -> None:
    line, _ = failures.explain(error, connection)
    output.note(line)
