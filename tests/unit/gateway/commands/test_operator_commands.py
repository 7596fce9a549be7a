"""The operator's commands: a token on standard output alone, a verdict in the exit status, a table to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gateway.audit import record as records
from gateway.audit.tools import tail
from gateway.authentication import Authenticator, IssuerConfig
from gateway.commands import dev_issuer, token
from gateway.principal import Principal
from tests.support.fixtures import audit_log

app = typer.Typer()
app.command("token")(token.token)
app.add_typer(token.audit, name="audit")
runner = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, arguments)
    return result.exit_code, result.stdout


def minted(home: Path, *arguments: str) -> Principal:
    dev_issuer.ensure_key(home)
    code, printed = run("token", *arguments)
    assert code == 0
    entry = IssuerConfig(issuer=dev_issuer.ISSUER, audience=dev_issuer.AUDIENCE, jwks=home / "keys" / "jwks.json")
    return Authenticator([entry]).authenticate(f"Bearer {printed.strip()}")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--tenant", value) for value in ("a b", "-a", "\u00e9", "a\u00a0b", "a" * 129)),
        *(("--subject", value) for value in (" a", "a  b", "a\u200bb", "e\u0301", "a\nb", "a" * 257)),
        *(("--scope", value) for value in ('gen"erate', "a\\b", "g\u00e9n\u00e9rer")),
    ],
)
def test_no_token_is_made_that_the_gateway_would_refuse(option: str, value: str) -> None:
    said = runner.invoke(app, ["token", option, value])
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr.startswith(f"no token: {option}: ")


def test_a_token_is_all_that_is_printed(home: Path) -> None:
    principal = minted(home, "--tenant", "acme", "--subject", "bob", "--ttl", "15m")
    assert (principal.tenant, principal.subject) == ("acme", "bob")
    assert principal.scopes == frozenset(dev_issuer.SCOPES)


@pytest.mark.parametrize("scopes", [["--scope", "a b"], ["--scope", "a", "--scope", "b"]])
def test_scopes_may_be_repeated_or_in_one(home: Path, scopes: list[str]) -> None:
    assert minted(home, *scopes).scopes == frozenset({"a", "b"})


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)])
def test_durations(text: str, expected: int) -> None:
    assert token.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1w", "1.5h", "367d", "9" * 30, "١h"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        token.seconds(text)
    code, printed = run("token", f"--ttl={text}")
    assert (code, printed) == (2, "")


def test_an_intact_log(home: Path) -> None:
    audit_log.written(home)
    code, printed = run("audit", "verify")
    assert code == 0
    assert "intact" in printed
    code, printed = run("audit", "verify", "--json")
    assert (code, json.loads(printed)["records"]) == (0, 26)


def test_a_broken_log_says_where_and_fails(home: Path) -> None:
    log = audit_log.written(home)
    path = audit_log.segment(log)
    path.write_bytes(path.read_bytes().replace(b'"bob"', b'"eve"', 1))
    code, printed = run("audit", "verify", str(log))
    assert code == 1
    assert "record 1: altered" in printed
    code, printed = run("audit", "verify", "--json")
    assert code == 1
    assert json.loads(printed)["first_bad"]["seq"] == 1


def test_a_log_that_is_not_there_is_no_verdict(home: Path) -> None:
    assert run("audit", "verify")[0] == 2
    audit_log.written(home)
    assert run("audit", "verify", str(home / "elsewhere"))[0] == 2
    assert run("audit", "verify", "--key", str(home / "keys" / "audit-hmac.key"))[0] == 2
    assert run("audit", "tail", str(home / "elsewhere"))[0] == 2


def test_the_last_records(home: Path) -> None:
    audit_log.written(home, 40, segment_bytes=4096)
    code, printed = run("audit", "tail", "-n", "30", "--json")
    times = [json.loads(line)["time"] for line in printed.splitlines() if '"ended"' in line]
    assert code == 0
    assert len(printed.splitlines()) == 30
    assert times == sorted(times)
    assert times[-1] == 1_800_000_000_000_039
    code, printed = run("audit", "tail", "-n", "1")
    assert code == 0
    assert "acme" in printed


def test_what_a_record_says_is_no_markup_and_no_escape(home: Path) -> None:
    made = audit_log.ledger(home)
    made.append([records.encode(audit_log.record(subject="[red]\x1b[2J"))])
    made.close()
    code, printed = run("audit", "tail", "-n", "2")
    assert code == 0
    assert "\x1b[2J" not in printed


def test_following_sees_what_is_appended_across_segments(home: Path) -> None:
    made = audit_log.ledger(home, segment_bytes=4096)
    follower = tail.Follower(home / "audit")
    assert list(follower.new()) == []
    for number in range(40):
        made.append([audit_log.encoded(number)])
    seen = [content["time"] for content in follower.new() if content["event"] == "ended"]
    assert seen == [1_800_000_000_000_000 + number for number in range(40)]
    assert list(follower.new()) == []
    made.close()
