"""The command before it calls anything: help without the gateway's imports, refusals in one line, and no tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meshgate.cli.main import app

IMPORTED = """
import sys
from typer.testing import CliRunner
from meshgate.cli.main import app
result = CliRunner().invoke(app, sys.argv[1:])
assert result.exit_code == 0, result.output
print(result.output)
print("imported", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    for name in ("MESHGATE_TOKEN", "MESHGATE_CA", "MESHGATE_TARGET", "MESHGATE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(*arguments: str, said: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=said)


@pytest.mark.parametrize("arguments", [("--help",), ("generate", "--help"), ("up", "--help")])
def test_help_imports_nothing_that_is_slow(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    said, _, names = done.stdout.rpartition("imported ")
    assert not {"torch", "transformers", "jwt", "grpc", "gateway", "services"} & set(names.split())
    if arguments == ("--help",):
        assert all(name in said for name in ("generate", "chat", "embed", "audit", "token"))
        assert "Read and verify the audit log" in said


def test_the_helps_of_plug_ins_are_their_own() -> None:
    assert "tail" in run("audit", "--help").output
    assert "--tenant" in run("token", "--help").output


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (("models",), "no such CA; is `make up` running", 1),
        (("generate", "x", "-n", "-1"), "-n: must be a whole number from 0", 2),
        (
            ("generate", "x", "--seed", str(2**64)),
            "--seed: must be a whole number from 0 to 18,446,744,073,709,551,615",
            2,
        ),
        (("embed",), "a text, or --file with one, is required", 2),
        (("embed", "x", "--dimensions", "-1"), "--dimensions", 2),
        (("embed", "--file", "nowhere.txt"), "nowhere.txt: No such file or directory", 1),
    ],
)
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], said: str, status: int) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    result = run("embed", "--file", str(tmp_path / "x"))
    assert (result.exit_code, result.stderr) == (2, f"meshgate: {tmp_path / 'x'}: line 1 is not valid UTF-8\n")


def test_a_ca_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("x")
    result = run("--ca", str(tmp_path / "ca"), "models")
    assert (result.exit_code, result.stderr) == (1, f"meshgate: {tmp_path}/ca: no certificate in it, PEM is required\n")


@pytest.fixture
def certified(home: Path) -> Path:
    assert run("certs").exit_code == 0
    return home


def test_without_a_token(certified: Path) -> None:
    result = run("models")
    assert result.exit_code == 1
    assert "no token: give --token-file or MESHGATE_TOKEN, or run `make up`" in result.stderr


@pytest.mark.parametrize("flag", ["--token=not a token", "--token-file=nowhere"])
def test_a_token_that_is_none(certified: Path, flag: str) -> None:
    result = run(flag, "models")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "not a token" not in result.stderr
    assert "TOKEN_UNREADABLE" in result.stderr or "nowhere: the token can't be read: No such file" in result.stderr


def test_certificates_are_made_once(home: Path) -> None:
    assert "made gateway, generation, embedding, classification" in run("certs").stdout
    assert "all still good" in run("certs").stdout
    assert (home / "certs" / "gateway.pem").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ("token",),
        ("models",),
        ("generate", "x"),
        ("embed", "x"),
        ("classify", "x"),
        ("classifier", "list"),
        ("audit", "verify"),
        ("audit", "tail"),
        ("audit", "search"),
        ("audit", "match", "id", str(Path(__file__))),
        ("policy", "explain", "--token", "x", "--method", "/meshgate.v1.GenerationService/Generate"),
        ("policy", "revoke", "--issuer", "https://meshgate.local/dev", "--subject", "x"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_no_other_command_makes_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.delenv("MESHGATE_HOME")
    monkeypatch.chdir(tmp_path)
    assert run(*arguments).exit_code != 0
    assert list(tmp_path.rglob("*")) == []


def test_a_token_needs_the_key_and_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESHGATE_HOME")
    monkeypatch.chdir(tmp_path)
    result = run("token")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"{tmp_path}/.meshgate/keys/issuer-key.pem: no such file" in result.stderr
    assert "--home or MESHGATE_HOME" in result.stderr


def test_the_state_directory_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESHGATE_HOME")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "elsewhere"
    assert run("--home", str(home), "certs", "--issuer").exit_code == 0
    assert run("--home", str(home), "token").stdout.count(".") == 2
    monkeypatch.setenv("MESHGATE_HOME", str(home))
    assert run("token").exit_code == 0


def test_a_state_directory_keeps_itself_out_of_git(tmp_path: Path) -> None:
    made, own = tmp_path / "a" / "home", tmp_path / "project"
    own.mkdir()
    for home in (made, own):
        assert run("--home", str(home), "certs").exit_code == 0
    assert (made / ".gitignore").read_text() == "*\n"
    assert not (own / ".gitignore").exists()


@pytest.mark.parametrize(
    "path", [".meshgate/keys/issuer-key.pem", "docs/.meshgate/up.json", "examples/node/.meshgate/x"]
)
def test_no_state_directory_below_the_project_is_in_git(path: str) -> None:
    root = Path(__file__).parents[4]
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=root, check=False)
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.returncode == 0
