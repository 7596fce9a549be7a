"""`meshgate generate`: continues a text."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from meshgate.cli.connection import Connection
from meshgate.cli.failures import UsageError
from meshgate.cli.files.text_lines import BOM, MOST_BYTES
from meshgate.cli.options import AsJson, MaxTokens, Model, Sealed, Temperature, unless_empty, whole
from meshgate.cli.screen import finish_reason, output, waiting

_VARIED = 1.0
"""The temperature of several candidates where none is given: at 0 all would be the same."""


def generate(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads it from standard input.")],
    stream: Annotated[
        bool | None, typer.Option(help="Print text as it is made. Default: on a terminal.", show_default=False)
    ] = None,
    echo: Annotated[bool, typer.Option(help="Print the prompt before what continues it.")] = True,
    count: Annotated[int | None, typer.Option("-n", help="How many continuations.", show_default=False)] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus, 0 to 1.", show_default=False)] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling reproducible.", show_default=False)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; repeatable.", show_default=False)
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="A JSON schema that the text must match.", show_default=False)
    ] = None,
    regex: Annotated[str | None, typer.Option(help="An expression that it must match.", show_default=False)] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="One of several texts that it must be; repeatable.", show_default=False)
    ] = None,
    adapter: Annotated[str, typer.Option(help="A LoRA adapter of this tenant's.", show_default=False)] = "",
    model: Model = "",
    sealed: Sealed = False,
    as_json: AsJson = False,
) -> None:
    """Continue a text."""
    from meshgate.v1 import generation_pb2 as pb

    if temperature is None and (count or 1) > 1:
        temperature = _VARIED
    request = pb.GenerateRequest(
        model=model,
        prompt=_prompt(prompt),
        sampling=unless_empty(
            pb.Sampling(
                temperature=temperature, top_p=top_p, top_k=whole("--top-k", top_k), seed=whole("--seed", seed, 64)
            )
        ),
        max_output_tokens=whole("--max-tokens", max_tokens),
        candidate_count=whole("-n", count),
        stop=stop or (),
        constraint=_constraint(json_schema, regex, choice),
        adapter=adapter,
    )
    connection: Connection = ctx.obj
    show = Shown(request, "" if as_json or not echo else request.prompt, count or 1, as_json)
    with connection.channel(sealed=sealed) as channel:
        if output.on_terminal() and not as_json if stream is None else stream:
            _print_stream(open_stream(channel, request, connection.deadline), show)
        else:
            _print_whole(channel, connection.deadline, show)


class Shown(NamedTuple):
    """What is asked for, and how the answer is shown."""

    request: Any
    before: str
    """What stands before each candidate's text."""
    candidates: int
    as_json: bool


def _prompt(given: str) -> str:
    """The prompt: `given`, or for - standard input without its last line end. Raises UsageError."""
    if given != "-":
        return given
    read = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(read) > MOST_BYTES:
        raise UsageError(f"standard input has more than {MOST_BYTES:,} bytes, the most of a prompt")
    text = _utf8(read, "standard input").removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError("standard input is empty, and - reads the prompt from it")
    return text


def _utf8(read: bytes, name: str) -> str:
    try:
        return read.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not valid UTF-8") from None


def _constraint(json_schema: Path | None, regex: str | None, choice: list[str] | None) -> Any:
    """What the output must match, if anything."""
    from meshgate.v1 import generation_pb2 as pb

    if sum(each is not None for each in (json_schema, regex, choice or None)) > 1:
        raise UsageError("one of --json-schema, --regex and --choice is enough")
    if json_schema is not None:
        schema = _utf8(json_schema.read_bytes(), str(json_schema))
        if not schema.strip():
            raise UsageError(f"{json_schema}: is empty, and a JSON schema is required")
        return pb.Constraint(json_schema=schema)
    if regex is not None:
        return pb.Constraint(regex=regex)
    return pb.Constraint(choice=pb.Choice(options=choice)) if choice else None


def open_stream(channel: Any, request: Any, deadline: float) -> Any:
    """The replies of GenerateStream: iterable, and with `cancel`."""
    from meshgate.v1 import generation_pb2 as pb
    from meshgate.v1 import generation_pb2_grpc

    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    return stub.GenerateStream(pb.GenerateStreamRequest(request=request), timeout=deadline)


def _print_whole(channel: Any, deadline: float, show: Shown) -> None:
    from meshgate.v1 import generation_pb2_grpc

    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    with waiting.sign(quiet=show.as_json):
        reply = stub.Generate(show.request, timeout=deadline)
    if show.as_json:
        output.json(reply)
        return
    for candidate in reply.candidates:
        if len(reply.candidates) > 1:
            output.text(heading(candidate.index))
        output.text(show.before + candidate.text)
    _explain([candidate.finish for candidate in reply.candidates], show)


def _print_stream(replies: Iterable[Any], show: Shown) -> None:
    if show.as_json:
        for reply in replies:
            output.json(reply, line=True)
        return
    ends: list[Any] = []
    for piece in in_turn(_noted(waiting.until_first(replies), ends), show.candidates, show.before):
        output.text(piece, newline=False, piece=True)
    output.text()
    _explain(ends, show)


def _noted(replies: Iterable[Any], ends: list[Any]) -> Iterator[Any]:
    """`replies` as they are; how their candidates ended is collected in `ends`."""
    for reply in replies:
        ends.extend(delta.finish for delta in reply.deltas if delta.HasField("finish"))
        yield reply


def _explain(ends: Iterable[Any], show: Shown) -> None:
    finish_reason.explain(ends, asked=show.request.HasField("max_output_tokens"))


def in_turn(replies: Iterable[Any], count: int, before: str = "") -> Iterator[str]:
    """The text of `count` interleaved candidates, to be read one after the other: the first as it is made, each later
    one as soon as those before it have ended. `before` stands at the beginning of each.
    """
    held: defaultdict[int, str] = defaultdict(str)
    ended: set[int] = set()
    shown, begun = 0, False
    for reply in replies:
        for delta in reply.deltas:
            held[delta.index] += delta.text
            if delta.HasField("finish"):
                ended.add(delta.index)
        while shown < count:
            if count > 1 and not begun:
                yield f"\n{heading(shown)}\n" if shown else f"{heading(shown)}\n"
            yield held.pop(shown, "") if begun else before + held.pop(shown, "")
            begun = True
            if shown not in ended:
                break
            shown, begun = shown + 1, False


def heading(index: int) -> str:
    """What stands above one of several candidates."""
    return f"--- {index + 1} ---"
