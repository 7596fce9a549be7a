"""The files of a bulk job: numpy's own reader agrees, lines are lines, and what has changed is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.cli.failures import UsageError
from meshgate.cli.files import npy, progress, text_lines
from meshgate.cli.files.progress import Options, Progress


@given(st.integers(1, 10**12), st.integers(1, 65_536), st.sampled_from(["<f4", "<f2"]))
def test_numpy_reads_the_header(rows: int, columns: int, descr: str) -> None:
    file = io.BytesIO(npy.header(npy.Shape(rows, columns, descr)))
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((rows, columns), False, np.dtype(descr))
    assert file.tell() == npy.HEADER_BYTES


@pytest.mark.parametrize("descr", ["<f4", "<f2"])
def test_a_matrix_can_be_mapped_before_it_is_whole_and_resumed(tmp_path: Path, descr: str) -> None:
    path, shape = tmp_path / "m.npy", npy.Shape(4, 3, descr)
    rows = np.arange(1, 13, dtype=descr).reshape(4, 3)
    with npy.Matrix(path, shape, 0) as matrix:
        matrix.write(rows[:3].tobytes())
        matrix.save()
        assert np.array_equal(np.load(path, mmap_mode="r")[:3], rows[:3])
        assert not np.load(path)[3].any()
    with npy.Matrix(path, shape, 2) as matrix:
        matrix.write(rows[2:].tobytes())
    assert np.array_equal(np.load(path), rows)


def test_a_matrix_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "m.npy").write_text("somebody's")
    with pytest.raises(FileExistsError):
        npy.Matrix(tmp_path / "m.npy", npy.Shape(1, 1, "<f4"), 0)


words = st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1).filter(str.strip)


@given(st.lists(words, min_size=1, max_size=40), st.integers(1, 7), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_lines_are_what_they_were_from_wherever_one_goes_on(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int, end: str, last: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes((end.join(texts) + (end if last else "")).encode())
    assert text_lines.survey(path).lines == len(texts)
    whole = list(text_lines.chunks(path, 0, size))
    assert [text for chunk in whole for text in chunk.texts] == texts
    done = 0
    for chunk in whole:
        done += len(chunk.texts)
        assert [text for later in text_lines.chunks(path, chunk.end, size) for text in later.texts] == texts[done:]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"one\n\nthree\n", "line 2 is blank"),
        (b"one\n  \t\r\n", "line 2 is blank"),
        (b"one\n\xff\n", "line 2 is not valid UTF-8"),
        (b"x" * (text_lines.MOST_BYTES + 1), "line 1 has more than"),
        (b"ok\n" + b"x" * (3 * text_lines.MOST_BYTES) + b"\n", "line 2 has more than"),
    ],
)
def test_what_is_no_text_is_found_before_anything_is_done(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "texts").write_bytes(content)
    with pytest.raises(UsageError, match=fault):
        progress.begin(tmp_path / "texts", tmp_path / "v.npy", Options())
    assert not progress.side_file(tmp_path / "v.npy").exists()


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, Path]:
    texts, out = tmp_path / "texts", tmp_path / "v.npy"
    texts.write_text("one\ntwo\n")
    begun = progress.begin(texts, out, Options())
    npy.Matrix(out, npy.Shape(2, 3, "<f4"), 0).__exit__()
    Progress(begun.lines, begun.digest, begun.options, 1, 4, 3, "m").save(progress.side_file(out))
    return texts, out


def test_the_same_command_goes_on(job: tuple[Path, Path]) -> None:
    kept = progress.begin(*job, Options())
    assert (kept.done, kept.offset, kept.columns, kept.model) == (1, 4, 3, "m")


def test_what_has_changed_is_refused(job: tuple[Path, Path]) -> None:
    texts, out = job
    with pytest.raises(UsageError, match="other options"):
        progress.begin(texts, out, Options(dimensions=5))
    texts.write_text("one\nTwo\n")
    with pytest.raises(UsageError, match="has changed"):
        progress.begin(texts, out, Options())
    texts.write_text("one\ntwo\n")
    with out.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match="is not as it was left"):
        progress.begin(texts, out, Options())


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"options": {"evil": 1}}', "\x00"])
def test_a_side_file_of_something_else_is_refused(job: tuple[Path, Path], content: str) -> None:
    progress.side_file(job[1]).write_text(content)
    with pytest.raises(UsageError, match="no progress of this command"):
        progress.begin(*job, Options())


def test_a_finished_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("one\n")
    (tmp_path / "v.npy").write_text("finished")
    with pytest.raises(UsageError, match="is there already"):
        progress.begin(tmp_path / "texts", tmp_path / "v.npy", Options())
    assert (tmp_path / "v.npy").read_text() == "finished"


def test_the_side_file_is_json(job: tuple[Path, Path]) -> None:
    assert json.loads(progress.side_file(job[1]).read_text())["done"] == 1
