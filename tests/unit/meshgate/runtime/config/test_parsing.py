"""A configuration that is not understood stops the start, with the key named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from meshgate.runtime import config


class Inner(config.Strict):
    rate: int = Field(1, ge=1)


class Outer(config.Strict):
    name: str = ""
    inner: Inner = Inner()


def load(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return config.load(path, Outer)


def test_values_are_read(tmp_path: Path) -> None:
    assert load(tmp_path, 'name = "a"\n[inner]\nrate = 3').inner.rate == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nmae = 1", "nmae"),
        ("[inner]\nrtae = 1", "inner.rtae"),
        ("[inner]\nrate = 0", "inner.rate"),
        ("name = ", "not valid TOML"),
        ('name = "${MESHGATE_TEST_UNSET}"', "MESHGATE_TEST_UNSET"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(config.ConfigError, match=named):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="No such file"):
        config.load(tmp_path / "absent.toml", Outer)


def test_the_state_directory_is_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", "/state")
    assert load(tmp_path, 'name = "${MESHGATE_HOME}/certs"').name == "/state/certs"


def test_values_in_errors_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError) as caught:
        load(tmp_path, '[inner]\nrate = "s3cret"')
    assert "s3cret" not in str(caught.value)
