"""`meshgate embed` and `meshgate models`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from meshgate.cli.connection import Connection
from meshgate.cli.failures import UsageError
from meshgate.cli.files import text_lines
from meshgate.cli.options import TRUNCATING, AsJson, File, Model, Sealed, Texts, unless_empty, whole
from meshgate.cli.screen import input_names, output

_SHOWN = 4
_COLUMNS: tuple[str, ...] = (
    "model",
    "does",
    "input tokens",
    "output",
    "a call",
    "default",
    "aliases",
    "runs as",
    "quality",
    "since",
)
_TOO_MANY = "; --file with --out takes any number of them"
_NAMED = 10
"""Adapters of a model in a table; --json has all that were told."""


def embed(
    ctx: typer.Context,
    texts: Texts = None,
    file: File = None,
    model: Model = "",
    dimensions: Annotated[int | None, typer.Option(help="Keep the first so many.", show_default=False)] = None,
    prompt_name: Annotated[str, typer.Option(help="A prompt of the model, such as query.", show_default=False)] = "",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long at the end.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="A .npy file: row n is of line n of --file. Interrupted, it goes on.", show_default=False),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of --out: float32 or float16.")] = "float32",
    sealed: Sealed = False,
    as_json: AsJson = False,
) -> None:
    """Turn texts into vectors."""
    connection: Connection = ctx.obj
    dimensions = whole("--dimensions", dimensions)
    if out is not None:
        if file is None or texts or as_json:
            raise UsageError("--out takes its texts from --file, and from nowhere else")
        from meshgate.cli.commands import embed_file
        from meshgate.cli.files.progress import Options

        wanted = Options(model, dimensions, prompt_name, truncate, dtype)
        embed_file.embed(connection, file, out, wanted, sealed=sealed)
        return
    from meshgate.v1 import embedding_pb2 as pb
    from meshgate.v1 import embedding_pb2_grpc

    inputs = text_lines.inputs(texts, file)
    options = unless_empty(
        pb.EmbedOptions(
            dimensions=dimensions,
            prompt_name=prompt_name,
            truncation=pb.TRUNCATION_END if truncate else pb.TRUNCATION_UNSPECIFIED,
        )
    )
    with (
        connection.channel(sealed=sealed) as channel,
        input_names.named(lambda at: inputs[at].name, TRUNCATING, whole=str(file or ""), parts=_TOO_MANY),
    ):
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        request = pb.EmbedRequest(model=model, inputs=[each.text for each in inputs], options=options)
        reply = stub.Embed(request, timeout=connection.deadline)
    if as_json:
        output.json(reply)
        return
    rows = []
    for (text, _), embedding in zip(inputs, reply.embeddings, strict=True):
        values = embedding.floats.values
        norm = math.sqrt(math.fsum(value * value for value in values))
        start = ", ".join(f"{value:.4f}" for value in values[:_SHOWN])
        rows.append((output.short(text), len(values), f"{norm:.4f}", embedding.tokens, f"{start}, ..."))
    output.table(("text", "numbers", "norm", "tokens", "vector"), rows)


def models(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the models that you may use."""
    from meshgate.v1 import models_pb2 as pb
    from meshgate.v1 import models_pb2_grpc

    connection: Connection = ctx.obj
    with connection.channel() as channel:
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)
        reply = stub.ListModels(pb.ListModelsRequest(), timeout=connection.deadline)
    if as_json:
        output.json(reply)
        return
    columns = _COLUMNS
    rows = [_described(model) for model in reply.models]
    if any(model.adapters or model.more_adapters for model in reply.models):
        columns = (*columns, "adapters")
        rows = [(*row, _adapters(model)) for row, model in zip(rows, reply.models, strict=True)]
    output.table(columns, rows)


def _described(model: Any) -> tuple[Any, ...]:
    from meshgate.v1 import models_pb2 as pb

    names = (pb.Capability.Name(each).removeprefix("CAPABILITY_").lower() for each in model.capabilities)
    return (
        model.name,
        ", ".join(names),
        model.max_source_tokens or model.max_input_tokens,
        _makes(model),
        _at_once(model),
        "yes" if model.default else "",
        ", ".join(model.aliases),
        _runs(model),
        f"{model.quality:.4f}" if model.HasField("quality") else "",
        f"{model.loaded_at.ToDatetime():%Y-%m-%d %H:%M} UTC" if model.HasField("loaded_at") else "",
    )


def _runs(model: Any) -> str:
    """Such as `bfloat16, int8 on cpu`."""
    formats = ", ".join(part for part in (model.dtype, model.quantisation) if part)
    return f"{formats} on {model.device}" if model.device else formats


def _makes(model: Any) -> str:
    if model.HasField("max_output_tokens"):
        return f"{model.max_output_tokens} tokens"
    return f"{model.dimensions} numbers" if model.HasField("dimensions") else ", ".join(model.labels)


def _adapters(model: Any) -> str:
    """The first few, and whether there are others."""
    shown = model.adapters[:_NAMED]
    cut = model.more_adapters or len(shown) < len(model.adapters)
    return ", ".join([*shown, *(["…"] if cut else [])])


def _at_once(model: Any) -> str:
    """The most that one request may hold or ask for."""
    if model.HasField("max_candidates"):
        return f"{model.max_candidates} candidates"
    return f"{model.max_batch} inputs" if model.HasField("max_batch") else ""
