"""`meshgate classifier`: classifiers of your tenant's own. `meshgate classify --model NAME` uses one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from meshgate.cli.connection import Connection
from meshgate.cli.failures import UsageError
from meshgate.cli.files import labelled_texts
from meshgate.cli.options import AsJson, Sealed, unless_empty, whole
from meshgate.cli.screen import input_names, output

classifier = typer.Typer(help="Classifiers of your own: train, list, roll back, delete.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The classifier's name: a-z, 0-9, '.', '_' and '-'.", show_default=False)]

_TEXTS: Final = 64
"""In one message."""


@classifier.command()
def train(
    ctx: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Option(help="CSV with columns text and label, or .jsonl.", show_default=False)],
    seed: Annotated[int | None, typer.Option(help="Which texts are held out.", show_default=False)] = None,
    held_out: Annotated[
        float | None, typer.Option(help="The share that is held out to measure by.", show_default=False)
    ] = None,
    sealed: Sealed = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier, or a new version of one, and serve it at once. Says how good it is on texts held out."""
    from meshgate.v1 import classification_pb2 as pb

    options = unless_empty(pb.TrainOptions(seed=whole("--seed", seed, 64), held_out=held_out))
    texts = list(labelled_texts.read(file))  # a mistake in it is said before anything is sent
    if not texts:
        raise UsageError(f"{file}: no text in it")
    connection: Connection = ctx.obj
    with (
        connection.channel(sealed=sealed) as channel,
        input_names.named(lambda at: f"{file}: line {texts[at].line}", whole=str(file)),
    ):
        replies = _stub(channel).TrainClassifier(_requests(name, options, texts), timeout=connection.deadline)
        report = _followed(replies, quiet=as_json)
    if as_json:
        output.json(report)
    else:
        _show(report)


@classifier.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List your tenant's classifiers and their versions."""
    from meshgate.v1 import classification_pb2 as pb

    connection: Connection = ctx.obj
    with connection.channel() as channel:
        reply = _stub(channel).ListClassifiers(pb.ListClassifiersRequest(), timeout=connection.deadline)
    if as_json:
        output.json(reply)
    else:
        _table(reply.classifiers)


@classifier.command()
def delete(ctx: typer.Context, name: Name) -> None:
    """Forget a classifier and all its versions."""
    from meshgate.v1 import classification_pb2 as pb

    connection: Connection = ctx.obj
    with connection.channel() as channel:
        _stub(channel).DeleteClassifier(pb.DeleteClassifierRequest(model=name), timeout=connection.deadline)


@classifier.command()
def rollback(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Option(help="Default: the one before that which is served.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve another version that is kept."""
    from meshgate.v1 import classification_pb2 as pb

    connection: Connection = ctx.obj
    request = pb.RollbackClassifierRequest(model=name, version=whole("--version", version))
    with connection.channel() as channel:
        reply = _stub(channel).RollbackClassifier(request, timeout=connection.deadline)
    if as_json:
        output.json(reply)
    else:
        _table([reply.classifier])


def _stub(channel: Any) -> Any:
    from meshgate.v1 import classification_pb2_grpc

    return classification_pb2_grpc.ClassificationServiceStub(channel)


def _requests(name: str, options: Any, texts: list[labelled_texts.Labelled]) -> Iterator[Any]:
    from meshgate.v1 import classification_pb2 as pb

    yield pb.TrainClassifierRequest(model=name, options=options)
    rest = iter(texts)
    while chunk := [pb.LabelledInput(text=text, label=label) for text, label, _ in islice(rest, _TEXTS)]:
        yield pb.TrainClassifierRequest(inputs=chunk)


def _followed(replies: Any, *, quiet: bool) -> Any:
    """The report at the end, with a line on how far it is meanwhile."""
    report: Any = None
    console = output.console(stderr=True)
    console.quiet = quiet
    with console.status("sending") as status:
        for reply in replies:
            if reply.HasField("report"):
                report = reply.report
            else:
                status.update(f"read {reply.progress.read} of {reply.progress.inputs} texts")
    return report


def _show(report: Any) -> None:
    output.text(f"{report.model} version {report.version}: {report.accuracy:.1%} of held-out texts are right")
    names = [each.label for each in report.labels]
    rows = [(each.label, each.inputs, each.held_out, *each.classified) for each in report.labels]
    output.table(("label", "texts", "held out", *(f"as {name}" for name in names)), rows)


def _table(classifiers: Any) -> None:
    rows = [
        (
            each.model,
            f"{version.version}{' *' if version.version == each.version else ''}",
            version.trained.ToDatetime().isoformat(timespec="seconds") + "Z",
            f"{version.accuracy:.1%}",
            version.inputs,
            ", ".join(version.labels),
        )
        for each in classifiers
        for version in each.versions
    ]
    output.table(("classifier", "version (* served)", "trained", "held-out accuracy", "texts", "labels"), rows)
