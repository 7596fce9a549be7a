"""Files as editors, spreadsheets and other encodings leave them: read, or refused with file and line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshgate import errors
from meshgate.cli import failures
from meshgate.cli.commands import embed_file, generate
from meshgate.cli.commands.chat import Chat
from meshgate.cli.commands.conversation import Talk
from meshgate.cli.failures import UsageError
from meshgate.cli.files import labelled_texts, text_lines
from meshgate.cli.screen import input_names
from meshgate.v1 import generation_pb2 as pb

BOM = b"\xef\xbb\xbf"


def _file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, end: bytes) -> None:
    file = _file(tmp_path, "texts", BOM + b"one" + end + b"two" + end)
    assert [each.text for each in text_lines.inputs(None, file)] == ["one", "two"]
    assert text_lines.numbered(file) == ["one", "two"]
    rows = _file(tmp_path, "rows.csv", BOM + b"text,label" + end + b"hi,a" + end)
    assert list(labelled_texts.read(rows)) == [labelled_texts.Labelled("hi", "a", 2)]
    objects = _file(tmp_path, "rows.jsonl", BOM + b'{"text": "hi", "label": "a"}' + end)
    assert list(labelled_texts.read(objects)) == [labelled_texts.Labelled("hi", "a", 1)]


def test_chunks_that_go_on_keep_a_mark_that_is_not_at_the_beginning(tmp_path: Path) -> None:
    file = _file(tmp_path, "texts", b"one\n" + BOM + b"two\n")
    assert text_lines.numbered(file) == ["one", "\ufefftwo"]
    assert next(text_lines.chunks(file, 4, 1)).texts == ["\ufefftwo"]


@pytest.mark.parametrize(
    ("content", "line"), [(b"\xff\xfeh\x00i\x00", 1), (b"a\nb\n\xff\n", 3), (b"a\n\nb\xe9\n", 3), (b"a\n\xc3", 2)]
)
def test_another_encoding_is_told_with_its_line(tmp_path: Path, content: bytes, line: int) -> None:
    file = _file(tmp_path, "texts", content)
    with pytest.raises(UsageError, match=f"^{file}: line {line} is not valid UTF-8$"):
        text_lines.inputs(None, file)
    schema = _file(tmp_path, "schema.json", content)
    with pytest.raises(UsageError, match=f"^{schema} is not valid UTF-8$"):
        generate._constraint(schema, None, None)


def test_a_file_of_labels_that_is_empty_or_has_no_header_says_what_is_required(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it is empty, and columns text and label are required$"):
        list(labelled_texts.read(_file(tmp_path, "a.csv", b"")))
    with pytest.raises(UsageError, match=r"line 1: no column text; the first line names the columns, with commas"):
        list(labelled_texts.read(_file(tmp_path, "b.csv", b"text;label\nhi;a\n")))


def _told(field: str, description: str) -> str:
    with (
        pytest.raises(errors.InvalidArgument) as caught,
        input_names.named(lambda at: f"a.csv: line {at + 2}", whole="a.csv", parts="; take fewer"),
    ):
        raise errors.InvalidArgument.of(field, description)
    [violation] = caught.value.violations
    return f"{violation.field}: {violation.description}"


def test_whole_files_labels_and_second_texts_are_called_as_the_user_knows_them() -> None:
    assert _told("inputs", "at most 1,024") == "a.csv: at most 1,024; take fewer"
    assert _told("inputs[3].label", "too long") == "a.csv: line 5, its label: too long"
    assert _told("inputs[3].text_pair", "too long") == "a.csv: line 5, its second text: too long"
    assert _told("model", "unknown") == "model: unknown"


class _Cut:
    """An answer that ends for a reason."""

    def __init__(self, reason: pb.FinishReason.ValueType) -> None:
        self._reply = pb.GenerateStreamResponse(deltas=[pb.CandidateDelta(text="x", finish=pb.Finish(reason=reason))])

    def __iter__(self) -> object:
        return iter([self._reply])

    def cancel(self) -> None:
        """Nothing is under way."""


@pytest.mark.parametrize(
    ("reason", "limited", "said"),
    [
        (pb.FINISH_REASON_BUDGET, False, "your tokens of this minute are used up"),
        (pb.FINISH_REASON_LENGTH, False, "--max-tokens asks for more"),
        (pb.FINISH_REASON_LENGTH, True, ""),
        (pb.FINISH_REASON_CANCELLED, False, "--deadline allows more time"),
        (pb.FINISH_REASON_STOP, False, ""),
    ],
)
def test_a_talk_says_why_an_answer_was_cut(
    reason: pb.FinishReason.ValueType, limited: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Chat(Talk(), lambda _: _Cut(reason), limited=limited).run(["hello"])  # type: ignore[arg-type, return-value]
    errors_ = capsys.readouterr().err
    assert said in errors_
    assert bool(errors_) is bool(said)


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_disk_that_is_full_is_told_with_the_file(tmp_path: Path, kind: int) -> None:
    told = embed_file._at(OSError(kind, os.strerror(kind)), tmp_path / "x.npy")
    assert failures.explain(told) == (f"meshgate: {tmp_path / 'x.npy'}: {os.strerror(kind)}", failures.FAILED)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_was_closed_is_no_defect(tmp_path: Path, number: int) -> None:
    command = [str(Path(sys.executable).parent / "meshgate"), "generate", "-"]
    environment = {**os.environ, "MESHGATE_HOME": str(tmp_path)}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.close(number),
    ) as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert said.decode() == (
        "" if number == 2 else "meshgate: standard input is empty, and - reads the prompt from it\n"
    )
