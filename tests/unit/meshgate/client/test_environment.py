"""One set of variables for the command, the SDK and the examples; what is empty or junk is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meshgate.cli.main import app
from meshgate.client import environment
from meshgate.runtime.config import ConfigError

TOKEN = "eyJ.eyJ.c2ln"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NAMES = ("MESHGATE_TARGET", "MESHGATE_CA", "MESHGATE_TOKEN", "MESHGATE_TOKEN_FILE")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path / "home"))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home" / "certs").mkdir(parents=True)
    (tmp_path / "home" / "certs" / "ca.pem").write_text(PEM)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path


def test_what_is_not_set_is_as_make_up_leaves_it(home: Path) -> None:
    found = environment.settings({"MESHGATE_TOKEN": TOKEN})
    assert found == {"target": "127.0.0.1:8443", "ca": home / "home" / "certs" / "ca.pem", "token": TOKEN}


def test_all_of_it_can_be_set(home: Path) -> None:
    (home / "other.pem").write_text(PEM)
    said = {
        "MESHGATE_TARGET": "a:1",
        "MESHGATE_CA": str(home / "other.pem"),
        "MESHGATE_TOKEN_FILE": str(home / "token"),
    }
    assert environment.settings(said) == {"target": "a:1", "ca": home / "other.pem", "token": home / "token"}


WRONG: list[tuple[Mapping[str, str], str]] = [
    ({}, "no token: set MESHGATE_TOKEN, or MESHGATE_TOKEN_FILE"),
    *(({"MESHGATE_TOKEN": TOKEN, name: value}, f"{name} is empty") for name in NAMES[:2] for value in ("", "  ")),
    *(({name: value}, f"{name} is empty") for name in NAMES[2:] for value in ("", " \n")),
    ({"MESHGATE_TOKEN": TOKEN, "MESHGATE_TOKEN_FILE": "token"}, "both set: unset one of them"),
    ({"MESHGATE_TOKEN": TOKEN, "MESHGATE_CA": "/none.pem"}, "/none.pem: the CA can't be read: No such file"),
    ({"MESHGATE_TOKEN_FILE": "/none"}, "/none: the token can't be read: No such file"),
]


@pytest.mark.parametrize(("said", "told"), WRONG)
def test_what_is_wrong_is_told(said: Mapping[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        environment.settings(said)


JUNK = [
    b"",
    b"\n",
    b"hello",
    b"a.b",
    b"a.b.c.d",
    b"a.b.c\na.b.c",
    b"<html></html>",
    b"\xff\xfe",
    b"a." + b"b" * 9000 + b".c",
]


@pytest.mark.parametrize("junk", JUNK)
def test_a_file_of_junk_is_no_token(home: Path, junk: bytes) -> None:
    (home / "token").write_bytes(junk)
    with pytest.raises(ConfigError, match=r"token: no token in it: expected three base64url parts"):
        environment.settings({"MESHGATE_TOKEN_FILE": str(home / "token")})


@pytest.mark.parametrize(
    ("flags", "said", "told"),
    [
        (("--token", ""), {}, "--token: it is empty"),
        (("--token", " "), {}, "--token: it is empty"),
        (("--token-file", ""), {}, "--token-file: it is empty"),
        (("--token", TOKEN, "--token-file", "token"), {}, "one of them is enough"),
        ((), {"MESHGATE_TOKEN": ""}, "MESHGATE_TOKEN is empty"),
        ((), {"MESHGATE_TOKEN_FILE": ""}, "MESHGATE_TOKEN_FILE is empty"),
        ((), {"MESHGATE_TOKEN": TOKEN, "MESHGATE_TOKEN_FILE": "token"}, "both set"),
        ((), {"MESHGATE_TOKEN_FILE": "/none"}, "/none: the token can't be read"),
        (("--token-file", "/none"), {"MESHGATE_TOKEN": TOKEN}, "/none: the token can't be read"),
        (("--token", TOKEN, "--ca", "/none"), {}, "/none: no such CA"),
        # A flag goes before the environment, so these get as far as the target.
        (("--token", TOKEN, "--target", "x"), {"MESHGATE_TOKEN_FILE": "/none"}, "--target"),
        (("--token", TOKEN, "--target", "x"), {"MESHGATE_TOKEN": ""}, "--target"),
    ],
)
def test_the_command_reads_the_same(flags: tuple[str, ...], said: Mapping[str, str], told: str) -> None:
    done = CliRunner().invoke(app, [*flags, "models"], env=said)
    assert done.exit_code in (1, 2)
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
