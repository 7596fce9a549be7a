"""Conversions: made once, whole or not at all, and made again when they are broken."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from meshgate.runtime.config import ConfigError
from services.generation.config import ModelConfig
from services.generation.model import checkpoint
from tests.tinymodels.llama import build_tiny_llama


class Converter:
    """Writes a small model, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, gguf: Path, directory: Path) -> None:
        self.calls += 1
        (directory / "model.safetensors").write_bytes(b"converted " + gguf.read_bytes())


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"weights")
    return file


def test_the_second_time_nothing_is_converted(tmp_path: Path, gguf: Path) -> None:
    convert = Converter()
    first = checkpoint.converted(gguf, convert, tmp_path / "cache")
    assert checkpoint.converted(gguf, convert, tmp_path / "cache") == first
    assert convert.calls == 1
    assert (first / "model.safetensors").read_bytes() == b"converted weights"


def test_other_bytes_are_another_model(tmp_path: Path, gguf: Path) -> None:
    first = checkpoint.converted(gguf, Converter(), tmp_path / "cache")
    gguf.write_bytes(b"other weights")
    assert checkpoint.converted(gguf, Converter(), tmp_path / "cache") != first


@pytest.mark.parametrize("damage", ["changed", "missing", "no manifest", "not a manifest"])
def test_a_broken_conversion_is_replaced(tmp_path: Path, gguf: Path, damage: str) -> None:
    place = checkpoint.converted(gguf, Converter(), tmp_path / "cache")
    weights, manifest = place / "model.safetensors", place / "manifest.json"
    match damage:
        case "changed":
            weights.write_bytes(b"converted w3ights")
        case "missing":
            weights.unlink()
        case "no manifest":
            manifest.unlink()
        case "not a manifest":
            manifest.write_text("[1]")
    convert = Converter()
    assert checkpoint.converted(gguf, convert, tmp_path / "cache") == place
    assert convert.calls == 1
    assert weights.read_bytes() == b"converted weights"
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [place.name]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, gguf: Path) -> None:
    def fail(gguf: Path, directory: Path) -> None:
        (directory / "half").write_bytes(b"half")
        raise ValueError

    with pytest.raises(ConfigError, match=r"^model\.source: "):
        checkpoint.converted(gguf, fail, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_at_once_end_with_one_whole_model(tmp_path: Path, gguf: Path) -> None:
    together, places = threading.Barrier(2, timeout=20), []
    convert = Converter()

    def slowly(gguf: Path, directory: Path) -> None:
        convert(gguf, directory)
        together.wait()  # both have converted before either renames

    def run() -> None:
        places.append(checkpoint.converted(gguf, slowly, tmp_path / "cache"))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(places) == 2
    assert places[0] == places[1]
    assert checkpoint.intact(places[0])
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [places[0].name]


def test_what_a_crash_left_is_removed_later_and_what_is_being_made_is_not(tmp_path: Path, gguf: Path) -> None:
    old, new = tmp_path / "cache" / ".part-old", tmp_path / "cache" / ".part-new"
    for part in (old, new):
        part.mkdir(parents=True)
    os.utime(old, (0, 0))
    checkpoint.converted(gguf, Converter(), tmp_path / "cache")
    assert not old.exists()
    assert new.exists()


def test_sources(tmp_path: Path, gguf: Path) -> None:
    def located(source: Path) -> Path:
        return checkpoint.locate(ModelConfig(source=str(source)), Converter(), tmp_path / "cache", "models.0")

    folder = build_tiny_llama(tmp_path / "llama")
    assert located(folder) == folder
    assert located(gguf).parent == tmp_path / "cache"
    with pytest.raises(ConfigError, match=r"^models\.0\.source: .*absent\.gguf: No such file"):
        located(tmp_path / "absent.gguf")


def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    assert checkpoint.packaged_gguf().suffix == ".gguf"
