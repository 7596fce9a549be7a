"""Files of labelled texts: what is wrong is said with its line, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgate.cli.failures import UsageError
from meshgate.cli.files import labelled_texts
from tests.unit.meshgate.cli.test_main import run


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", 'label,text,note\nrefund,"Money, back",1\nbug,"two\nlines",2\n')
    assert list(labelled_texts.read(path)) == [
        labelled_texts.Labelled("Money, back", "refund", 2),
        labelled_texts.Labelled("two\nlines", "bug", 4),
    ]


def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jsonl", '{"text": "été", "label": "a"}\n\n{"label": "b", "text": "y", "more": 1}\n')
    assert list(labelled_texts.read(path)) == [
        labelled_texts.Labelled("été", "a", 1),
        labelled_texts.Labelled("y", "b", 3),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.txt", "text,label\n", "--file: .csv or .jsonl is required"),
        ("x.csv", "", "it is empty, and columns text and label"),
        ("x.csv", "text,lable\nx,y\n", "line 1: no column label"),
        ("x.csv", "text,label\nx,y\nz\n", "line 3: no label"),
        ("x.csv", "text,label\n ,y\n", "line 2: no text"),
        ("x.csv", 'text,label\n"x"y,z\n', "line 2:"),
        ("x.csv", b"text,label\n\xff,y\n", "not UTF-8"),
        ("x.jsonl", '{"text": "x"}\n', "line 1: no label"),
        ("x.jsonl", '{"text": "x", "label": "y"}\n{"text"\n', "line 2: not JSON"),
        ("x.jsonl", "[]\n", "line 1: not an object"),
        ("x.jsonl", '{"text": 5, "label": "y"}\n', "line 1: no text"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(UsageError, match=said):
        list(labelled_texts.read(path))
    result = run("classifier", "train", "mine", "--file", str(path))
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = run("classifier", "train", "mine", "--file", str(tmp_path / "none.csv"))
    assert result.exit_code == 1
    assert "No such file" in result.stderr
