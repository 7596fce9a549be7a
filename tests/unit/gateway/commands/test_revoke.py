"""`meshgate policy revoke` and `restore`: what they write is what the gateway reads, and nothing else is lost."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gateway.authentication import RevocationConfig, Revoked, revocations_of
from gateway.authentication.revocation import revocation_writer
from gateway.authentication.revocation.revocation_list import Revocable
from gateway.commands import dev_issuer
from gateway.commands.policy import policy
from tests.unit.gateway.commands.test_policy import config, mint

app = typer.Typer()
app.add_typer(policy, name="policy")
runner = CliRunner()

OTHER = """
[[issuers]]
issuer = "https://id.example"
audience = "meshgate"
jwks = "${MESHGATE_HOME}/keys/jwks.json"
"""
BOB = ("--issuer", "https://id.example", "--subject", "bob")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    dev_issuer.ensure_key(tmp_path)
    return tmp_path


@pytest.fixture
def configured(home: Path) -> tuple[Path, Path]:
    """A configuration with a list in a file that is not there yet, and that file."""
    listed = home / "revoked.json"
    return config(home, more=f'[revocation]\nfile = "{listed}"\n{OTHER}'), listed


def run(command: str, *arguments: str, config: Path, text: str = "") -> tuple[int, str]:
    result = runner.invoke(app, ["policy", command, *arguments, "--config", str(config)], input=text)
    done = "revoked" if command == "revoke" else "restored"
    said = f"{done}: written to {config.parent / 'revoked.json'}, as {config} says\n"
    return result.exit_code, "" if result.output == said else result.output


def covers(listed: Path, **token: Any) -> bool:
    """Whether a gateway that reads the file believes a token no longer."""
    known = revocations_of(RevocationConfig(file=listed), None)
    fields = {"issuer": "https://id.example", "token_id": None, "subject": "eve", "issued_at": None}
    return known.covers(Revocable(**{**fields, **token}))


def test_a_subject_is_revoked_and_restored(configured: tuple[Path, Path]) -> None:
    path, listed = configured
    assert run("revoke", *BOB, config=path) == (0, "")
    assert covers(listed, subject="bob")
    assert not covers(listed, subject="eve")
    assert run("revoke", "--issuer", "https://id.example", "--jti", "6f1c", config=path) == (0, "")
    assert run("restore", *BOB, config=path) == (0, "")
    assert not covers(listed, subject="bob")
    assert covers(listed, token_id="6f1c")


def test_a_token_is_revoked_by_itself_and_no_other(home: Path, configured: tuple[Path, Path]) -> None:
    path, listed = configured
    token = mint(home)
    assert run("revoke", "--token", "-", config=path, text=f"{token}\n") == (0, "")
    (entry,) = json.loads(listed.read_text())["revoked"]
    assert set(entry) == {"issuer", "jti", "until"}
    assert time.time() < entry["until"] < time.time() + 3600
    explained = ["policy", "explain", "--token", "-", "--method", "GenerationService/Generate", "--config", str(path)]
    assert "TOKEN_REVOKED" in runner.invoke(app, explained, input=token).output
    assert runner.invoke(app, explained, input=mint(home)).exit_code == 0


def test_what_is_issued_from_now_on_is_spared(configured: tuple[Path, Path]) -> None:
    path, listed = configured
    assert run("revoke", *BOB, "--issued-before", "now", config=path) == (0, "")
    now = time.time()
    assert covers(listed, subject="bob", issued_at=now - 5)
    assert covers(listed, subject="bob", issued_at=None)
    assert not covers(listed, subject="bob", issued_at=now + 5)


def test_revoking_twice_is_one_entry(configured: tuple[Path, Path]) -> None:
    path, listed = configured
    run("revoke", *BOB, "--issued-before", "now", config=path)
    run("revoke", *BOB, config=path)
    assert json.loads(listed.read_text())["revoked"] == [{"issuer": "https://id.example", "subject": "bob"}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--issuer", "i"), "jti or subject is required"),
        (("--issuer", "i", "--jti", "j", "--subject", "s"), "jti or subject is required"),
        (("--jti", "j"), "issuer"),
        (("--issuer", "i", "--jti", "j", "--issued-before", "now"), "issued_before is for a subject"),
        (("--issuer", "i", "--subject", "s", "--issued-before", "soon"), "'soon' is neither a time"),
        (
            ("--issuer", "https://id.exampel", "--subject", "s"),
            "no issuer 'https://id.exampel'; did you mean 'https://id.example'?",
        ),
        (("--token", "nonsense"), "not a token"),
        (("--token", "x", "--subject", "s"), "leave the other options out"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    configured: tuple[Path, Path], arguments: tuple[str, ...], said: str
) -> None:
    path, listed = configured
    code, output = run("revoke", *arguments, config=path)
    assert code == 2
    assert said in output
    assert output.count("\n") == 1
    assert not listed.exists()


def test_without_a_list_there_is_nowhere_to_write(home: Path) -> None:
    assert run("revoke", *BOB, config=config(home)) == (
        2,
        "not revoked: the gateway's configuration has no [revocation]\n",
    )


def test_a_file_that_is_no_list_stays_as_it_is(configured: tuple[Path, Path]) -> None:
    path, listed = configured
    listed.write_text('{"revoked": 1}')
    assert run("revoke", *BOB, config=path) == (2, "not revoked: the file is not a revocation list\n")
    assert listed.read_text() == '{"revoked": 1}'


def test_two_who_revoke_at_once_lose_nothing(tmp_path: Path) -> None:
    listed = tmp_path / "revoked.json"

    def revoke_some(start: int) -> None:
        for number in range(start, start + 10):
            revocation_writer.write_file(listed, Revoked(issuer="https://id.example", jti=f"t{number}"))

    threads = [threading.Thread(target=revoke_some, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(covers(listed, token_id=f"t{number}") for number in range(30))
    assert [path.name for path in tmp_path.iterdir() if "revoked" in path.name] == ["revoked.json"]
