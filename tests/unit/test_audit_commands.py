"""`meshgate audit`: search, match, and verdicts on several writers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gateway import commands
from gateway.audit import AuditRecord
from gateway.audit import record as records
from gateway.audit.digest import DigestKeys
from gateway.moments import moment
from meshgate.v1 import generation_pb2
from tests import audit_log
from tests.audit_log import FastDisk

app = typer.Typer()
app.add_typer(commands.audit, name="audit")
runner = CliRunner()

QUESTION = generation_pb2.GenerateRequest(prompt="why is the sky blue")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = runner.invoke(app, ["audit", *arguments])
    return result.exit_code, result.stdout


def write(home: Path, *entries: AuditRecord, writer: str = "") -> None:
    made = audit_log.ledger(home, FastDisk(), writer=writer)
    for entry in entries:
        made.append([records.encode(entry)])
    made.close()


def ids(printed: str) -> list[str]:
    found = [json.loads(line) for line in printed.splitlines()]
    return [record["request_id"] for record in found if "request_id" in record]


def entry(name: str, ago: float = 0.0, **changes: Any) -> AuditRecord:
    return audit_log.record(request_id=name, time=int((time.time() - ago) * 1e6), **changes)


def test_searching_by_everything(home: Path) -> None:
    write(
        home,
        entry("a", 7200, tenant="globex"),
        entry("b", 600, event="refused", decision="deny", reason="RATE_LIMITED", status="RESOURCE_EXHAUSTED"),
        entry("c", 60, model="minilm", method="/meshgate.v1.EmbeddingService/Embed", subject="eve"),
    )
    expected = {
        ("--tenant", "globex"): ["a"],
        ("--subject", "eve"): ["c"],
        ("--request-id", "b"): ["b"],
        ("--decision", "deny"): ["b"],
        ("--reason", "RATE_LIMITED"): ["b"],
        ("--status", "OK"): ["c", "a"],
        ("--method", "Embed"): ["c"],
        ("--model", "minilm"): ["c"],
        ("--event", "refused"): ["b"],
        ("--since", "1h"): ["c", "b"],
        ("--until", "1h"): ["a"],
        ("--since", "1h", "--until", "5m"): ["b"],
        ("--oldest",): ["a", "b", "c"],
        ("--tenant", "acme", "--status", "OK"): ["c"],
        ("--tenant", "nobody"): [],
    }
    for asked, found in expected.items():
        code, printed = run("search", *asked, "--json")
        assert (code, ids(printed)) == (0, found), asked
    code, printed = run("search", "--event", "ended", "--limit", "1", "--json")
    assert ids(printed) == ["c"]
    code, printed = run("search", "--tenant", "globex")
    assert "globex/bob" in printed


@pytest.mark.parametrize("asked", [("--since", "soon"), ("--until", "2030-13-01"), ("--since", "400d")])
def test_a_time_that_is_none_is_a_usage_error(home: Path, asked: tuple[str, str]) -> None:
    write(home)
    assert run("search", *asked) == (2, "")


def test_a_search_where_no_log_is(home: Path) -> None:
    assert run("search") == (2, "")
    assert run("search", str(home)) == (2, "")


def test_moments() -> None:
    assert moment("15m", 1000.0) == 100_000_000
    assert moment("1970-01-01T00:01", 0) == 60_000_000
    assert moment("1970-01-01T01:01:00+01:00", 0) == 60_000_000
    assert moment("1970-01-02", 0) == 86_400_000_000


def test_several_writers_are_verified_and_shown_together(home: Path) -> None:
    write(home, entry("a", 2), writer="worker-0")
    write(home, entry("b", 1), writer="worker-1")
    code, printed = run("verify", "--json")
    verdict = json.loads(printed)
    assert (code, verdict["intact"], verdict["records"]) == (0, True, 6)
    assert [each["writer"] for each in verdict["writers"]] == ["worker-0", "worker-1"]
    code, printed = run("tail", "--json")
    assert ids(printed) == ["a", "b"]
    path = audit_log.segment(home / "audit" / "worker-1")
    path.write_bytes(path.read_bytes().replace(b'"bob"', b'"eve"'))
    code, printed = run("verify", "--json")
    verdict = json.loads(printed)
    assert (code, verdict["intact"]) == (1, False)
    assert verdict["first_bad"]["writer"] == "worker-1"
    code, printed = run("verify")
    assert (code, "worker-0" in printed, "intact" in printed, "broken at record 1" in printed) == (1, True, True, True)


def test_checkpoints_kept_elsewhere_are_looked_for(home: Path) -> None:
    write(home, *[entry(str(number)) for number in range(30)])
    signed = (home / "audit" / "checkpoints.jsonl").read_text().splitlines()
    said = [json.dumps({"message": "audit checkpoint", "checkpoint": line}) for line in signed]
    process_log = home / "gateway.log"
    process_log.write_text("\n".join(["not JSON", '{"message":"serving"}', "[]", *said]))
    code, printed = run("verify", "--checkpoint", str(process_log), "--checkpoint", signed[0], "--json")
    assert (code, json.loads(printed)["writers"][0]["matched"]) == (0, len(signed) + 1)
    audit_log.segment(home / "audit").write_bytes(
        b"".join(audit_log.segment(home / "audit").read_bytes().splitlines(keepends=True)[:11])
    )
    audit_log.uncover(home / "audit", 11)
    assert run("verify")[0] == 0
    code, printed = run("verify", "--checkpoint", str(process_log))
    assert (code, "broken at record 11: missing" in " ".join(printed.split())) == (1, True)
    assert run("verify", "--checkpoint", signed[-1])[0] == 1


def test_what_is_no_checkpoint_is_a_usage_error(home: Path) -> None:
    write(home)
    (home / "empty").write_text("nothing\n")
    for given in (str(home / "empty"), str(home / "absent"), "{}", '{"signature":"00"}', '{"checkpoint":"[]"}'):
        assert run("verify", "--checkpoint", given) == (2, ""), given


@pytest.fixture
def digested(home: Path) -> Path:
    """A log of one call with digests, and files of its messages."""
    macs = DigestKeys(home / "keys", audit_log.LONG).macs()
    macs.request.update(QUESTION.SerializeToString())
    for chunk in (b"because", b"of Rayleigh"):
        macs.reply.update(chunk)
    made = {"request_hmac": macs.request.hexdigest(), "reply_hmac": macs.reply.hexdigest(), "hmac_key_id": macs.key_id}
    write(home, entry("call", 1, **made), entry("other", 1))
    (home / "question.bin").write_bytes(QUESTION.SerializeToString())
    (home / "question.json").write_text('{"prompt": "why is the sky blue"}')
    (home / "lie.json").write_text('{"prompt": "why is the sky green"}')
    (home / "1").write_bytes(b"because")
    (home / "2").write_bytes(b"of Rayleigh")
    return home


@pytest.mark.parametrize(
    ("files", "reply", "code"),
    [
        (["question.bin"], False, 0),
        (["question.json"], False, 0),
        (["lie.json"], False, 1),
        (["question.bin"], True, 1),
        (["question.bin", "question.bin"], False, 1),
        (["1", "2"], True, 0),
        (["2", "1"], True, 1),
        (["1"], True, 1),
        (["absent"], False, 2),
    ],
)
def test_content_is_matched_with_its_digest(digested: Path, files: list[str], reply: bool, code: int) -> None:
    paths = [str(digested / name) for name in files]
    assert run("match", "call", *paths, *(["--reply"] if reply else []))[0] == code


def test_what_cannot_be_matched_is_no_verdict(digested: Path) -> None:
    question = str(digested / "question.bin")
    assert run("match", "other", question)[0] == 2
    assert run("match", "unknown", question)[0] == 2
    (digested / "broken.json").write_text("{")
    assert run("match", "call", str(digested / "broken.json"))[0] == 2
    (digested / "keys" / "audit-hmac.key").unlink()
    assert run("match", "call", question)[0] == 2
