"""`meshgate audit`: search, match, and verdicts on several writers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from typer.testing import CliRunner

from gateway.audit import AuditRecord
from gateway.audit import record as records
from gateway.audit.keys.content_hmac import HmacKeys
from gateway.commands import token
from gateway.commands.audit_query import EVENTS, STATUSES
from gateway.commands.time_args import moment
from meshgate.cli import main
from meshgate.cli.failures import UsageError
from meshgate.cli.options import unless_empty
from meshgate.cli.screen import output
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import FastDisk

app = typer.Typer()
app.add_typer(token.audit, name="audit")
runner = CliRunner()

GENERATION = "meshgate.v1.GenerationService"
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
    hmacs = HmacKeys(home / "keys", audit_log.LONG).hmacs()
    hmacs.request.update(QUESTION.SerializeToString())
    for chunk in (b"because", b"of Rayleigh"):
        hmacs.reply.update(chunk)
    made = {
        "request_hmac": hmacs.request.hexdigest(),
        "reply_hmac": hmacs.reply.hexdigest(),
        "hmac_key_id": hmacs.key_id,
    }
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


MISTAKES: dict[tuple[str, ...], str] = {
    ("--decision", "maybe"): "allow, deny",
    ("--decision", "Allow"): "allow, deny",
    ("--decision", ""): "a word to look for is required",
    ("--status", "FOO"): "PERMISSION_DENIED",
    ("--status", "ok"): "OK, CANCELLED",
    ("--status", "7"): "PERMISSION_DENIED",
    ("--method", "Foo"): "Generate, GenerateStream",
    ("--method", "generate"): "Generate, GenerateStream",
    ("--method", "/meshgate.v1.GenerationService/Embed"): "Generate, GenerateStream",
    ("--method", ""): "a word to look for is required",
    ("--event", "end"): "admitted, ended, refused",
    ("--reason", "rate limited"): "RATE_LIMITED",
    ("--reason", ""): "a word to look for is required",
    ("--tenant", ""): "--tenant",
    ("--subject", ""): "--subject",
    ("--model", ""): "--model",
    ("--request-id", ""): "--request-id",
    ("--since", "yesterday"): "--since: 'yesterday' is neither a time",
    ("--since", ""): "--since",
    ("--until", "12:00"): "--until",
    ("--until", "2030-02-30"): "--until",
    ("--since", "-1h"): "--since",
    ("--since", "1h", "--until", "2h"): "--until: a time after that of --since",
    ("--limit", "-1"): "--limit",
    ("--limit", "many"): "--limit",
    ("--scope", "x"): "--scope",
    ("--peer", "x"): "--peer",
}


@pytest.mark.parametrize(("asked", "said"), MISTAKES.items(), ids=[" ".join(asked) for asked in MISTAKES])
def test_what_no_record_can_have_is_a_usage_error(home: Path, asked: tuple[str, ...], said: str) -> None:
    write(home, entry("a"))
    result = runner.invoke(app, ["audit", "search", *asked], env={"COLUMNS": "400"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_that_is_allowed_is_documented(event: str) -> None:
    assert f"`{event}`" in (Path(__file__).parents[4] / "docs" / "formats" / "audit-log.md").read_text()


def test_every_status_is_one_of_grpcs() -> None:
    assert set(STATUSES) == {code.name for code in grpc.StatusCode}


@pytest.mark.parametrize(
    "method", ["Generate", "GenerationService/Generate", "/meshgate.v1.GenerationService/Generate"]
)
def test_a_method_by_any_of_its_names(home: Path, method: str) -> None:
    write(home, entry("a"))
    code, printed = run("search", "--method", method, "--json")
    assert (code, ids(printed)) == (0, ["a"])


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("order", [[], ["--oldest"]])
def test_a_search_says_that_it_stopped_and_how_to_go_on(home: Path, as_json: list[str], order: list[str]) -> None:
    write(home, *[entry(f"call{number}", 30 - number) for number in range(25)])
    seen: list[str] = []
    more: list[str] = []
    for _ in range(3):
        result = runner.invoke(app, ["audit", "search", "--event", "ended", "--limit", "10", "--json", *order, *more])
        shown = runner.invoke(app, ["audit", "search", "--event", "ended", "--limit", "10", *as_json, *order, *more])
        assert result.stderr == shown.stderr
        seen += ids(result.stdout)
        if "there are more" not in result.stderr:
            break
        assert "stopped at 10 records" in result.stderr
        assert "--limit 0 prints all" in result.stderr
        more = result.stderr.rpartition("all, ")[2].split()[:2]
    expected = [f"call{number}" for number in range(25)]
    assert list(dict.fromkeys(seen)) == (expected if order else expected[::-1])
    assert runner.invoke(app, ["audit", "search", "--event", "ended", "--limit", "25"]).stderr == ""
    assert runner.invoke(app, ["audit", "search", "--event", "ended", "--limit", "0"]).stderr == ""


def test_a_search_that_finds_nothing_says_so(home: Path) -> None:
    write(home, entry("a"))
    result = runner.invoke(app, ["audit", "search", "--tenant", "nobody"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no record" in result.stderr


@pytest.mark.parametrize("command", ["search", "tail", "verify"])
def test_a_folder_that_is_no_state_directory_says_how_to_name_one(home: Path, command: str) -> None:
    result = runner.invoke(app, ["audit", command], env={"COLUMNS": "400"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        f"is not there; {home} is no state directory of a mesh: --home or MESHGATE_HOME names another" in result.stderr
    )
    elsewhere = runner.invoke(app, ["audit", command, str(home.parent / "absent")], env={"COLUMNS": "400"})
    assert elsewhere.exit_code == 2
    assert command == "verify" or "MESHGATE_HOME" not in elsewhere.stderr


@pytest.mark.parametrize("command", [["search"], ["tail"]])
def test_lines_that_no_gateway_wrote_are_told(home: Path, command: list[str]) -> None:
    write(home, entry("a"))
    path = audit_log.segment(home / "audit")
    path.write_bytes(path.read_bytes().replace(b'"tenant"', b'"\\u0074enant"'))
    result = runner.invoke(app, ["audit", *command])
    assert result.exit_code == 1
    assert "1 line is not written as the gateway writes them; `meshgate audit verify` names the first" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "ABSENT"], "ABSENT is not there"),
        (["verify", "EMPTY"], "EMPTY has no audit log in it; name the directory of one"),
        (["verify", "FILE"], "FILE is a file, and the directory of a log is required"),
        (["verify", "LOG", "--key", "ABSENT"], "ABSENT is not there"),
        (["verify", "LOG", "--key", "EMPTY"], "EMPTY is a directory, and a file is required"),
        (["verify", "LOG", "--key", "FILE"], "file is not a public key, PEM"),
        (["verify", "LOG", "--checkpoint", "ABSENT"], "ABSENT is not there"),
        (["verify", "LOG", "--checkpoint", "EMPTY"], "EMPTY is a directory, and a file is required"),
        (["verify", "LOG", "--checkpoint", "FILE"], "the input has no checkpoint"),
        (["tail", "ABSENT"], "ABSENT is not there"),
        (["tail", "EMPTY"], "EMPTY has no audit log in it"),
        (["tail", "FILE"], "FILE is a file"),
        (["search", "ABSENT"], "ABSENT is not there"),
        (["search", "EMPTY"], "EMPTY has no audit log in it"),
        (["search", "FILE"], "FILE is a file"),
        (["match", "x", "ABSENT", "--in", "LOG"], "no record of that call has digests"),
        (["match", "a", "ABSENT", "--in", "LOG"], "ABSENT is not there"),
        (["match", "a", "EMPTY", "--in", "LOG"], "EMPTY is a directory, and a file is required"),
        (["match", "a", "FILE", "--in", "ABSENT"], "ABSENT is not there"),
        (["match", "a", "FILE", "--in", "EMPTY"], "EMPTY has no audit log in it"),
        (["match", "a", "FILE", "--in", "LOG", "--keys", "ABSENT"], "is not in ABSENT; name its directory by --keys"),
        (["match", "a", "MESSAGE", "--in", "LOG"], "MESSAGE is not the JSON of a GenerateRequest"),
    ],
)
def test_what_can_not_be_read_is_a_sentence(home: Path, arguments: list[str], said: str) -> None:
    write(home, entry("a", request_hmac="0" * 64, hmac_key_id="0" * 16))
    (home / "empty").mkdir()
    (home / "file").write_text("x")
    (home / "x.json").write_text('{"prompt": 7}')
    names = {"ABSENT": "absent", "EMPTY": "empty", "FILE": "file", "LOG": "audit", "MESSAGE": "x.json"}
    given = [str(home / names[each]) if each in names else each for each in arguments]
    result = runner.invoke(app, ["audit", *given], env={"COLUMNS": "400"})
    assert (result.exit_code, result.stdout) == (2, "")
    for word, name in names.items():
        said = said.replace(word, str(home / name))
    assert said in result.stderr
    assert "Errno" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_the_command_prints_as_json_is_matched(home: Path) -> None:
    """A reply by --json, one of a stream by --stream --json, and a request without options as the command sends it."""
    reply = generation_pb2.GenerateResponse(candidates=[generation_pb2.Candidate(text="because ☃", index=0)])
    reply.candidates[0].logprobs.add().chosen.logprob = -0.1
    pieces = [generation_pb2.GenerateStreamResponse(deltas=[generation_pb2.CandidateDelta(text=each)]) for each in "ab"]
    hmacs = {name: HmacKeys(home / "keys", audit_log.LONG).hmacs() for name in ("whole", "stream")}
    hmacs["whole"].reply.update(reply.SerializeToString())
    for piece in pieces:
        hmacs["stream"].reply.update(piece.SerializeToString())
    entries = [
        entry(name, 1, reply_hmac=each.reply.hexdigest(), hmac_key_id=each.key_id) for name, each in hmacs.items()
    ]
    entries[1]["method"] = "/meshgate.v1.GenerationService/GenerateStream"
    write(home, *entries)
    (home / "whole.json").write_text(printed_json([reply]))
    (home / "stream.jsonl").write_text(printed_json(pieces))
    assert run("match", "whole", str(home / "whole.json"), "--reply")[0] == 0
    assert run("match", "stream", str(home / "stream.jsonl"), "--reply")[0] == 0


def printed_json(messages: list[Any]) -> str:
    """What `--json` prints."""
    application = typer.Typer()

    @application.command()
    def show() -> None:
        for message in messages:
            output.json(message, line=len(messages) > 1)

    return runner.invoke(application, []).stdout


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (embedding_pb2.EmbedOptions(), False),
        (embedding_pb2.EmbedOptions(normalise=False), True),
        (generation_pb2.Sampling(), False),
        (generation_pb2.Sampling(temperature=0), True),
    ],
)
def test_options_that_nobody_gave_are_not_sent(message: Any, sent: bool) -> None:
    assert (unless_empty(message) is not None) == sent


def test_the_command_adds_no_empty_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends is what a stub sends that was given the texts alone."""
    calls: list[bytes] = []

    class Connection:
        deadline = 1.0

        @contextmanager
        def channel(self, *, sealed: bool = False) -> Iterator[Any]:
            yield self

        def unary_unary(self, path: str, request_serializer: Any, **_: Any) -> Any:
            def call(request: Any, timeout: float) -> Any:
                calls.append(request_serializer(request))
                raise UsageError("sent")

            return call

        unary_stream = stream_unary = stream_stream = unary_unary

    monkeypatch.setattr(main, "Connection", lambda *_: Connection())
    for arguments in (
        ["embed", "x"],
        ["classify", "x"],
        ["generate", "x", "--no-stream"],
        ["generate", "x", "--stream"],
    ):
        runner.invoke(main.app, arguments)
    assert calls == [
        embedding_pb2.EmbedRequest(inputs=["x"]).SerializeToString(),
        classification_pb2.ClassifyRequest(
            inputs=[classification_pb2.ClassificationInput(text="x")]
        ).SerializeToString(),
        generation_pb2.GenerateRequest(prompt="x").SerializeToString(),
        generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="x")).SerializeToString(),
    ]
