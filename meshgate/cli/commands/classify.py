"""`meshgate classify`: what texts are, how two of them go together, and which parts of one are names."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from meshgate.cli.connection import Connection
from meshgate.cli.failures import UsageError
from meshgate.cli.files import text_lines
from meshgate.cli.options import TRUNCATING, AsJson, File, Model, Sealed, Texts, unless_empty, whole
from meshgate.cli.screen import input_names, output

_TOO_MANY = "; give them in several calls"

EachT = TypeVar("EachT")


class Scores(StrEnum):
    """How scores are made."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    RAW = "raw"


class Grouping(StrEnum):
    """What a part of a text is."""

    SPANS = "spans"
    WORDS = "words"
    TOKENS = "tokens"


def classify(
    ctx: typer.Context,
    texts: Texts = None,
    file: File = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(help="A second text, for all texts; repeated, one for each.", show_default=False),
    ] = None,
    pair_file: Annotated[Path | None, typer.Option(help="A file with such on each line.", show_default=False)] = None,
    labels: Annotated[str | None, typer.Option(help="Labels to choose among, a,b,c.", show_default=False)] = None,
    multi_label: Annotated[bool, typer.Option("--multi-label", help="A text may have several labels.")] = False,
    top_k: Annotated[int | None, typer.Option(help="The k best labels. Default: all.", show_default=False)] = None,
    scores: Annotated[
        Scores | None, typer.Option(help="How they are made. Default: as suits the model.", show_default=False)
    ] = None,
    token_grouping: Annotated[
        Grouping | None,
        typer.Option(help="What a part of a text is. Default: spans.", show_default=False),
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long at the end.")] = False,
    model: Model = "",
    sealed: Sealed = False,
    as_json: AsJson = False,
) -> None:
    """Say what texts are: their sentiment, which of your own labels fits, the names in them, or how two go together."""
    from meshgate.v1 import classification_pb2 as pb
    from meshgate.v1 import classification_pb2_grpc

    pairs = _pairs(texts, file, pair, pair_file)
    request = pb.ClassifyRequest(
        model=model,
        inputs=[pb.ClassificationInput(text=first.text, text_pair=second) for first, second in pairs],
        options=unless_empty(
            pb.ClassifyOptions(
                multi_label=multi_label or None,
                top_k=whole("--top-k", top_k),
                score_function=_function(scores),
                truncate=truncate or None,
                token_grouping=_grouping(token_grouping),
            )
        ),
    )
    if labels is not None:
        request.candidate_labels.labels.extend(pb.CandidateLabel(name=name) for name in _names(labels))
    connection: Connection = ctx.obj
    if sealed and labels is not None and not model:
        request.model = _zero_shot(connection)
    with (
        connection.channel(sealed=sealed) as channel,
        input_names.named(lambda at: pairs[at][0].name, TRUNCATING, whole=str(file or ""), parts=_TOO_MANY),
    ):
        stub: Any = classification_pb2_grpc.ClassificationServiceStub(channel)
        reply = stub.Classify(request, timeout=connection.deadline)
    if as_json:
        output.json(reply, zeros=True)
        return
    spans = not any(result.labels for result in reply.results)
    (_show_spans if spans else _show_labels)(request.inputs, reply.results)


def _names(labels: str) -> list[str]:
    """The labels of a,b,c. Raises UsageError for one that is empty."""
    names = [name.strip() for name in labels.split(",")]
    if not all(names):
        place = names.index("") + 1
        raise UsageError("--labels: it is empty" if len(names) == 1 else f"--labels: label {place} is empty")
    return names


def _zero_shot(connection: Connection) -> str:
    """The model that chooses among labels, for a sealed request, which has to name it: nobody on the way can see that
    it brings labels. Raises UsageError where there is none.
    """
    from meshgate.v1 import models_pb2 as pb
    from meshgate.v1 import models_pb2_grpc

    with connection.channel() as channel:
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)
        models = stub.ListModels(pb.ListModelsRequest(), timeout=connection.deadline).models
    found = [model.name for model in models if pb.CAPABILITY_ZERO_SHOT in model.capabilities]
    if not found:
        raise UsageError("--labels: this gateway has no model for labels of your own (zero-shot)")
    return str(found[0])


def _function(scores: Scores | None) -> Any:
    from meshgate.v1 import classification_pb2 as pb

    functions = {
        Scores.SOFTMAX: pb.SCORE_FUNCTION_SOFTMAX,
        Scores.SIGMOID: pb.SCORE_FUNCTION_SIGMOID,
        Scores.RAW: pb.SCORE_FUNCTION_NONE,
    }
    return None if scores is None else functions[scores]


def _grouping(grouping: Grouping | None) -> Any:
    from meshgate.v1 import classification_pb2 as pb

    return None if grouping is None else pb.TokenGrouping.Value(f"TOKEN_GROUPING_{grouping.name}")


def _pairs(
    texts: list[str] | None, file: Path | None, pair: list[str] | None, pair_file: Path | None
) -> list[tuple[text_lines.Input, str]]:
    """Each text with its second one, which is empty where there is none. One text, or one second text, goes with all of
    the others. Raises UsageError where it can't be said which goes with which.
    """
    if not pair and pair_file is None:
        return [(text, "") for text in text_lines.inputs(texts, file)]
    firsts, seconds = _lined_up(texts, file), [each.text for each in _lined_up(pair, pair_file)]
    if not firsts:
        raise UsageError("a text, or --file with one, is required")
    most = max(len(firsts), len(seconds))
    if not {len(firsts), len(seconds)} <= {1, most}:
        raise UsageError(
            f"--pair: {len(firsts)} texts and {len(seconds)} second ones; one of either, or as many of both"
        )
    return list(zip(_each(firsts, most), _each(seconds, most), strict=True))


def _lined_up(texts: list[str] | None, file: Path | None) -> list[text_lines.Input]:
    given = [text_lines.Input(text, f"text {number}") for number, text in enumerate(texts or [], 1)]
    read = text_lines.numbered(file) if file is not None else []
    return [*given, *(text_lines.Input(text, f"{file}: line {number}") for number, text in enumerate(read, 1))]


def _each(texts: list[EachT], count: int) -> list[EachT]:
    return texts * count if len(texts) == 1 else texts


def _show_labels(inputs: Sequence[Any], results: Sequence[Any]) -> None:
    rows = []
    for item, result in zip(inputs, results, strict=True):
        scores = ", ".join(f"{each.label} {each.score:.3f}" for each in result.labels)
        rows.append((*_shown(item, inputs), result.labels[0].label if result.labels else "", scores))
    output.table((*_columns(inputs), "label", "scores"), rows)


def _show_spans(inputs: Sequence[Any], results: Sequence[Any]) -> None:
    """A row for each part that has a label; a text without such has a row of its own. Places are in characters from 0,
    and the end is the first that is no part of it.
    """
    rows: list[tuple[Any, ...]] = []
    for item, result in zip(inputs, results, strict=True):
        for span in result.spans:
            part = output.short(item.text[span.start : span.end])
            rows.append((output.short(item.text), part, span.label, f"{span.score:.3f}", span.start, span.end))
        if not result.spans:
            rows.append((output.short(item.text), *[""] * 5))
    output.table(("text", "part", "label", "score", "start", "end"), rows)


def _columns(inputs: Sequence[Any]) -> tuple[str, ...]:
    return ("text", "second text") if any(item.text_pair for item in inputs) else ("text",)


def _shown(item: Any, inputs: Sequence[Any]) -> tuple[str, ...]:
    return tuple(output.short(text) for text in (item.text, item.text_pair)[: len(_columns(inputs))])
