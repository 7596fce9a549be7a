"""`meshgate generate` and `meshgate chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from meshgate.cli import output
from meshgate.cli.connection import Connection

Sealed = Annotated[bool, typer.Option("--sealed", help="Encrypt the call to the gateway (HPKE).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as protobuf JSON.")]
Model = Annotated[str, typer.Option(help="Name or alias. Default: the service's own.", show_default=False)]
MaxTokens = Annotated[int | None, typer.Option(help="The most tokens of an answer.", show_default=False)]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy. Default 1.", show_default=False)]
System = Annotated[str, typer.Option(help="Instructions that stand above the conversation.", show_default=False)]


def generate(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")],
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it is made.")] = False,
    count: Annotated[int | None, typer.Option("-n", help="How many continuations.", show_default=False)] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus, 0 to 1.", show_default=False)] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling reproducible.", show_default=False)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; repeatable.", show_default=False)
    ] = None,
    model: Model = "",
    sealed: Sealed = False,
    as_json: AsJson = False,
) -> None:
    """Continue a text."""
    from meshgate.v1 import generation_pb2 as pb

    sampling = pb.Sampling(
        temperature=temperature, top_p=top_p, top_k=_whole("--top-k", top_k), seed=_whole("--seed", seed, 64)
    )
    request = pb.GenerateRequest(
        model=model,
        prompt=prompt,
        sampling=sampling,
        max_output_tokens=_whole("--max-tokens", max_tokens),
        candidate_count=_whole("-n", count),
        stop=stop or (),
    )
    connection: Connection = ctx.obj
    with connection.channel(sealed=sealed) as channel:
        if stream:
            _stream(_open(channel, request, connection), as_json)
        else:
            _whole_answer(channel, request, connection, as_json)


def _whole(flag: str, value: int | None, bits: int = 32) -> int | None:
    """Protobuf has no negative number to send here, so it is refused by us. The upper bound is the service's."""
    if value is not None and not 0 <= value < 2**bits:
        raise ValueError(f"{flag}: a whole number from 0 is required")
    return value


def _open(channel: Any, request: Any, connection: Connection) -> Iterable[Any]:
    from meshgate.v1 import generation_pb2 as pb
    from meshgate.v1 import generation_pb2_grpc

    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    replies: Iterable[Any] = stub.GenerateStream(pb.GenerateStreamRequest(request=request), timeout=connection.deadline)
    return replies


def _whole_answer(channel: Any, request: Any, connection: Connection, as_json: bool) -> None:
    from meshgate.v1 import generation_pb2_grpc

    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    reply = stub.Generate(request, timeout=connection.deadline)
    if as_json:
        output.json(reply)
        return
    for candidate in reply.candidates:
        if len(reply.candidates) > 1:
            output.console.rule(f"{candidate.index + 1}", align="left", style="dim")
        output.text(request.prompt + candidate.text)


def _stream(replies: Iterable[Any], as_json: bool) -> None:
    """Several candidates interleave; each change of candidate begins a line that says so."""
    last = 0
    for reply in replies:
        if as_json:
            output.json(reply, line=True)
            continue
        for delta in reply.deltas:
            if delta.index != last:
                last = delta.index
                output.text(f"\n[{delta.index + 1}] ", newline=False)
            output.text(delta.text, newline=False)
    if not as_json:
        output.text()


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

    turns = [pb.Message(role=pb.ROLE_SYSTEM, content=system)] if system else []
    connection: Connection = ctx.obj
    with connection.channel(sealed=sealed) as channel:
        while (said := _ask()) is not None:
            if not said:
                continue
            turns.append(pb.Message(role=pb.ROLE_USER, content=said))
            request = pb.GenerateRequest(
                model=model,
                conversation=pb.Conversation(messages=turns),
                sampling=pb.Sampling(temperature=temperature),
                max_output_tokens=_whole("--max-tokens", max_tokens),
            )
            answer = _answer(_open(channel, request, connection), as_json)
            # A turn can't be empty: what got no answer is taken back.
            turns.append(pb.Message(role=pb.ROLE_ASSISTANT, content=answer)) if answer else turns.pop()


def _ask() -> str | None:
    """What is typed next, or None at the end."""
    try:
        said = input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if said == "/exit" else said


def _answer(replies: Any, as_json: bool) -> str:
    made: list[str] = []
    try:
        for reply in replies:
            if as_json:
                output.json(reply, line=True)
            for delta in reply.deltas:
                made.append(delta.text)
                if not as_json:
                    output.text(delta.text, newline=False)
    except KeyboardInterrupt:
        replies.cancel()
    if not as_json:
        output.text()
    return "".join(made)
