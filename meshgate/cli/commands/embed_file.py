"""`meshgate embed --file TEXTS --out VECTORS`: row n of a .npy file is the vector of line n.

Memory does not grow with the file. How far it got is kept in a side file, VECTORS.progress, written after the vectors
that it counts are on the disk; so after an interruption of any kind the same command goes on from there. A file of
texts, or an option, that has changed since is refused: half of the vectors would be of something else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import typer

from meshgate.cli.connection import Connection
from meshgate.cli.failures import UsageError
from meshgate.cli.files import npy, text_lines
from meshgate.cli.files.progress import DTYPES, Options, Progress, begin, side_file
from meshgate.cli.options import TRUNCATING
from meshgate.cli.screen import output
from meshgate.cli.screen.input_names import named
from meshgate.errors import DeadlineExceeded, Internal, LimitExceeded, Unavailable

_LINES: Final = 64
"""In one message."""
_SAVE_SECONDS: Final = 1.0
_ATTEMPTS: Final = 8
"""So many calls in a row that bring nothing, and it is given up, until the command is run again."""
_PAUSE_LEAST: Final = 0.25
_PAUSE_MOST: Final = 60.0
_INTERRUPTED: Final = 130
_PASSING: Final = (Unavailable, LimitExceeded, DeadlineExceeded, Internal)
_SHARE: Final = 0.5
"""Of a call's deadline, after which it sends no more: what is in hand has the rest."""


def embed(connection: Connection, texts: Path, out: Path, options: Options, *, sealed: bool = False) -> None:
    """Runs a job, or the rest of one. Raises UsageError for what can't be, and what a call raises once it is given up;
    then, as after SIGINT, the same command goes on.
    """
    if options.dtype not in DTYPES:
        raise UsageError(f"--dtype: one of {', '.join(DTYPES)} is required")
    job = _Job(out, begin(texts, out, options))

    def line(place: int) -> str:
        """Replies come in the order of requests, so what is refused is in the message after those that are done."""
        return f"{texts}: line {job.progress.done + place + 1}"

    try:
        with connection.channel(sealed=sealed) as channel, _Bar(job.progress) as show, named(line, TRUNCATING):
            _run(job, channel, texts, connection.deadline, show)
    except KeyboardInterrupt:
        output.note(f"stopped after {job.progress.done} of {job.progress.lines} lines; the same command goes on")
        raise typer.Exit(_INTERRUPTED) from None
    except OSError as error:
        raise _at(error, out) from error
    side_file(out).unlink()


def _at(error: OSError, out: Path) -> OSError:
    """The error with the name of a file: what can't be written has none, and it is most likely this one."""
    return error if error.filename or error.errno is None else type(error)(error.errno, error.strerror, str(out))


class _Job:
    """The vectors that are being written, and how far they got."""

    def __init__(self, out: Path, progress: Progress) -> None:
        self.progress = progress
        self._out = out
        self._saved = time.monotonic()
        self._matrix = npy.Matrix(out, progress.shape, progress.done) if progress.done else None

    def add(self, reply: Any, chunk: text_lines.Chunk) -> None:
        """Writes a reply's vectors. Raises UsageError for those of another model, or of a service that is not sound."""
        rows = [embedding.packed for embedding in reply.embeddings]
        progress, matrix = self.progress, self._matrix
        if matrix is None:
            progress = replace(progress, columns=reply.dimensions, model=reply.model)
            matrix = self._matrix = npy.Matrix(self._out, progress.shape, 0)
        if reply.model != progress.model:
            raise UsageError(f"{self._out}: was begun with model {progress.model}, and now {reply.model} answers")
        if len(rows) != len(chunk.texts) or any(len(row) != matrix.shape.row_bytes for row in rows):
            raise UsageError("the service's vectors are not as they were asked for")
        matrix.write(b"".join(rows))
        self.progress = replace(progress, done=progress.done + len(rows), offset=chunk.end)
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Vectors first, then what counts them."""
        if self._matrix is not None:
            self._matrix.save()
            self.progress.save(side_file(self._out))
        self._saved = time.monotonic()

    def close(self) -> None:
        """Saves, and closes the file."""
        self.save()
        if self._matrix is not None:
            self._matrix.__exit__()


def _run(job: _Job, channel: Any, texts: Path, deadline: float, show: Callable[[int], None]) -> None:
    """One call after another until all is done; one that fails, and may be made again, goes on where it failed."""
    import grpc  # here, so that help does without it

    fruitless = 0
    try:
        while job.progress.done < job.progress.lines:
            before = job.progress.done
            try:
                _call(job, channel, texts, deadline, show)
            except grpc.RpcError as error:
                fruitless = 0 if job.progress.done > before else fruitless + 1
                pause = _pause(error, fruitless)
                job.save()
                time.sleep(pause)
            else:
                if job.progress.done == before:
                    raise UsageError("the service answered nothing")
    finally:
        job.close()


def _call(job: _Job, channel: Any, texts: Path, deadline: float, show: Callable[[int], None]) -> None:
    """One EmbedStream, from where the job stands to the end, or to half its deadline."""
    from meshgate.v1 import embedding_pb2_grpc

    sent: deque[text_lines.Chunk] = deque()
    stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    replies = stub.EmbedStream(_requests(job.progress, texts, sent, deadline * _SHARE), timeout=deadline)
    try:
        for reply in replies:
            job.add(reply.response, sent.popleft())
            show(job.progress.done)
    finally:
        replies.cancel()


def _requests(progress: Progress, texts: Path, sent: deque[text_lines.Chunk], seconds: float) -> Iterator[Any]:
    """Runs on a thread of gRPC's, which takes a message when the last has left."""
    from meshgate.v1 import embedding_pb2 as pb

    options, until = progress.options, time.monotonic() + seconds
    encodings = {"float32": pb.EMBEDDING_ENCODING_FLOAT32, "float16": pb.EMBEDDING_ENCODING_FLOAT16}
    asked = pb.EmbedOptions(
        dimensions=options.dimensions,
        prompt_name=options.prompt_name,
        truncation=pb.TRUNCATION_END if options.truncate else pb.TRUNCATION_ERROR,
        encoding=encodings[options.dtype],
    )
    for chunk in text_lines.chunks(texts, progress.offset, _LINES):
        sent.append(chunk)
        yield pb.EmbedStreamRequest(request=pb.EmbedRequest(model=options.model, inputs=chunk.texts, options=asked))
        if time.monotonic() >= until:
            return


def _pause(error: Any, fruitless: int) -> float:
    """Seconds until the next call. Raises `error` where there is to be none: a job of hours outlives a fault of theirs,
    but what is wrong with the job itself stays wrong.
    """
    from meshgate.client import explain

    meant = explain(error)
    if not isinstance(meant, _PASSING) or fruitless >= _ATTEMPTS:
        raise error
    said = meant.retry_after or 0.0 if isinstance(meant, Unavailable | LimitExceeded) else 0.0
    return min(_PAUSE_MOST, max(said, _PAUSE_LEAST * (1 << fruitless)))


class _Bar:
    """A progress bar on a terminal's standard error; elsewhere nothing."""

    def __init__(self, progress: Progress) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = output.console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=progress.lines, completed=progress.done)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return self._show

    def __exit__(self, *ended: object) -> None:
        self._bar.stop()

    def _show(self, done: int) -> None:
        self._bar.update(self._task, completed=done)
