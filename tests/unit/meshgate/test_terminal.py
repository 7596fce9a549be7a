"""Nothing from a server, a log or a file reaches a terminal as more than visible text, whatever command prints it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from gateway.audit.chain.hash_chain import BrokenChain
from gateway.audit.record import canonical
from gateway.audit.tools.verify import Report
from gateway.authorisation.explain import AppliedLimit, Explanation, Step
from gateway.commands import audit_output, policy
from meshgate import terminal
from meshgate.cli.commands import classifier, classify, embed, embed_file, generate
from meshgate.cli.commands.chat import Chat
from meshgate.cli.commands.conversation import Talk
from meshgate.cli.main import app
from meshgate.cli.screen import output
from meshgate.supervisor.board import Board
from meshgate.supervisor.console import MeshConsole
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, models_pb2
from tests.support.fixtures import audit_log

ROOT: Final = Path(__file__).parents[3]
OBEYED: Final = frozenset(
    chr(code)
    for first, end in (
        (0, 0x20),
        (0x7F, 0xA0),
        (0x2028, 0x202F),
        (0x2060, 0x2070),
        (0xE0000, 0xE0080),
        (0xD800, 0xD804),
    )
    for code in range(first, end)
) | frozenset("\u061c\u200b\u200e\u200f\ufeff\u00ad\u034f\u115f\u3164\ufff9\ufffb\ud800\udfff")
"""What no terminal may get from us, but for line ends and tabs of ours."""
STYLED: Final = "[red]x[/] [link=https://evil.example]y[/link] [/]"
HOSTILE: Final = "".join(sorted(OBEYED - {"\n"} - {letter for letter in OBEYED if 0xD800 <= ord(letter) < 0xE000}))
"""Everything that a protobuf string or a file of UTF-8 can hold of it."""
SEQUENCES: Final = "\x1b[2J\x1b]0;title\x07\x1b]8;;https://evil.example\x1b\\\x9b31m\x90x\x9c\x08\x08\rintact"
EVIL: Final = f"a[red]x\x1b[2J{SEQUENCES}{HOSTILE}b{STYLED}c ali\u200dce ali\u200cce a\ufe0f"
BAD_AFTER_LETTERS: Final = ("ali\u200dce", "ali\u200cce", "a\ufe0f")


def harmless(printed: str) -> bool:
    """Whether a terminal shows all of it and obeys nothing."""
    bad = OBEYED - {"\n", "\t"}
    return not (bad & set(printed)) and not any(each in printed for each in BAD_AFTER_LETTERS)


Shown = Callable[[Callable[[], object]], str]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What is printed, on both streams, to a terminal that takes no colours: so each escape would be a caller's."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100000")

    def read(show: Callable[[], object]) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", Terminal(sys.stdout))
            show()
        found = capsys.readouterr()
        return found.out + found.err

    return read


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return True


@given(st.text())
def test_what_is_escaped_is_harmless_and_an_escape_stays(text: str) -> None:
    for made in (terminal.escaped(text), terminal.line(text)):
        assert harmless(made)
        assert not any(unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") for each in made if each not in "\n\t")
        assert terminal.escaped(made) == made
    assert not set("\n\t") & set(terminal.line(text))


@pytest.mark.parametrize("letter", sorted(OBEYED), ids=lambda letter: f"U+{ord(letter):04X}")
def test_every_letter_that_is_obeyed_is_shown(letter: str) -> None:
    assert harmless(terminal.escaped(f"a{letter}b"))
    assert harmless(terminal.escaped(letter, piece=True))
    assert letter not in terminal.line(f"a{letter}b")
    assert f"{ord(letter):02x}" in terminal.line(letter) or letter in "\n\r\t"


@pytest.mark.parametrize(
    "text",
    [
        "你好，世界！",
        "👩\u200d👩\u200d👧",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "नमस्ते\n\t",
        "é",
        "می\u200cخواهم",
        "a\u00a0b\u3000c",
        "e\u0301",
    ],
)
def test_what_people_write_is_left_alone(text: str) -> None:
    assert terminal.escaped(text) == text
    assert "".join(terminal.escaped(letter, piece=True) for letter in text) == text


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_says_the_same_and_is_harmless(value: Any) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=2)
    assert harmless(terminal.json_escaped(document))
    assert json.loads(terminal.json_escaped(document)) == json.loads(document)


def replies() -> Iterator[tuple[str, Callable[[], None]]]:
    """Each command's way of printing what a server said, all of it evil."""
    text = embedding_pb2.EmbedResponse(model=EVIL)
    label = classification_pb2.LabelScore(label=EVIL, score=0.5)
    span = classification_pb2.LabelledSpan(label=EVIL, start=0, end=9)
    asked = [classification_pb2.ClassificationInput(text=EVIL, text_pair=EVIL)]
    delta = generation_pb2.CandidateDelta(
        text=EVIL, finish=generation_pb2.Finish(reason=generation_pb2.FINISH_REASON_STOP)
    )
    streamed = [generation_pb2.GenerateStreamResponse(deltas=[delta], model=EVIL)]
    custom = classification_pb2.CustomClassifier(model=EVIL, version=1)
    custom.versions.add(version=1, labels=[EVIL])
    report = classification_pb2.TrainingReport(model=EVIL, version=1)
    report.labels.add(label=EVIL, classified=[1])
    model = models_pb2.Model(name=EVIL, aliases=[EVIL], labels=[EVIL], dtype=EVIL, device=EVIL, adapters=[EVIL])

    request = generation_pb2.GenerateRequest(prompt=EVIL)
    for flags, as_json in (("", False), (" --json", True)):
        shown = generate.Shown(request, EVIL, 1, as_json)
        yield f"generate --stream{flags}", partial(generate._print_stream, streamed, shown)
    yield "generate", lambda: output.text(EVIL)
    yield "chat", lambda: Chat(Talk(), lambda _: Stream(streamed)).run(["x"])
    yield "chat --json", lambda: Chat(Talk(), lambda _: Stream(streamed), as_json=True).run(["x"])
    yield "classify", lambda: classify._show_labels(asked, [classification_pb2.Classification(labels=[label])])
    yield "classify spans", lambda: classify._show_spans(asked, [classification_pb2.Classification(spans=[span])])
    yield "embed", lambda: output.table(("text",), [(output.short(EVIL),)])
    yield "embed --json", lambda: output.json(text)
    yield "models", lambda: output.table(embed._COLUMNS, [embed._described(model)])
    yield "models' adapters", lambda: output.table(("adapters",), [(embed._adapters(model),)])
    yield "models --json", lambda: output.json(models_pb2.ListModelsResponse(models=[model]))
    yield "classifier train", lambda: classifier._show(report)
    yield "classifier list", lambda: classifier._table([custom])
    yield "a heading", lambda: output.table((EVIL,), [("x",)])
    yield "a remark", lambda: output.note(EVIL)
    yield "an error", lambda: output.error(EVIL)


class Stream(list[Any]):
    """Replies of a call."""

    def cancel(self) -> None:
        return


@pytest.mark.parametrize(("command", "show"), [pytest.param(*each, id=each[0]) for each in replies()])
def test_what_a_server_says(command: str, show: Callable[[], object], shown: Shown) -> None:
    printed = shown(show)
    assert harmless(printed)
    if "--json" not in command:
        assert "\\x1b[2J" in printed
        assert "[red]x" in printed


def test_json_of_a_server_is_the_same_message(shown: Shown) -> None:
    sent = models_pb2.ListModelsResponse(models=[models_pb2.Model(name=EVIL, aliases=["你好"])])
    printed = shown(lambda: output.json(sent))
    assert json_format.Parse(printed, models_pb2.ListModelsResponse()) == sent
    assert "你好" in printed


def test_a_pipe_gets_exactly_what_was_generated(capsys: pytest.CaptureFixture[str]) -> None:
    output.text(SEQUENCES)
    assert capsys.readouterr().out == SEQUENCES + "\n"


def records() -> Iterator[tuple[str, Callable[[], object]]]:
    """Each way of printing what is in a log or in a token."""
    record = dict.fromkeys(("event", "tenant", "subject", "method", "model", "reason", "status", "peer"), EVIL)
    broken = Report(writer=EVIL, broken=BrokenChain(3, EVIL), key=EVIL)
    steps = [Step("issuer", True, EVIL, EVIL), Step("model", False, EVIL, EVIL)]
    made = Explanation(steps, None, [AppliedLimit(EVIL, EVIL, 1, None)])

    yield "audit tail", lambda: audit_output.records([record], as_json=False)
    yield "audit tail --json", lambda: audit_output.records([record], as_json=True)
    yield "audit verify", lambda: audit_output.show([broken])
    yield "audit verify --json", lambda: output.data(audit_output.summary([broken]))
    yield "policy explain", lambda: policy._show(made)


@pytest.mark.parametrize(("command", "show"), [pytest.param(*each, id=each[0]) for each in records()])
def test_what_a_log_or_a_token_says(command: str, show: Callable[[], object], shown: Shown) -> None:
    assert harmless(shown(show))


def test_a_checkpoint_key_that_would_clear_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = audit_log.written(tmp_path)
    path = log / "checkpoints.jsonl"
    stated = json.loads(path.read_bytes().splitlines()[0])
    stated["key"] = "\x1bcintact"
    path.write_bytes(canonical(stated) + b"\n")
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    result = run("audit", "verify")
    assert result.exit_code == 1
    assert harmless(result.output)
    assert "broken" in result.output


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", "--file", EVIL),
        ("embed", "--file", EVIL, "--out", EVIL),
        ("classify", "x", "--pair-file", EVIL, "--pair", "x"),
        ("classifier", "train", "x", "--file", EVIL),
        ("classifier", "train", "x", "--file", f"{EVIL}.csv"),
        ("generate", "x", "--json-schema", EVIL),
        ("generate", "x", f"--{EVIL}"),
        ("generate", "x", EVIL),
        ("generate", "x", "-n", EVIL),
        (EVIL,),
        (f"--{EVIL}",),
        ("--deadline", EVIL, "models"),
        ("--ca", EVIL, "models"),
        ("--token-file", EVIL, "--ca", EVIL, "models"),
        ("classify", "x", "--scores", EVIL),
        ("audit", "verify", EVIL),
        ("audit", "verify", "--key", EVIL),
        ("audit", "verify", "--checkpoint", EVIL),
        ("audit", "tail", EVIL),
        ("audit", "search", "--in", EVIL),
        ("audit", "search", "--since", EVIL),
        ("audit", "match", EVIL, EVIL),
        ("policy", "explain", "--token", EVIL, "--method", EVIL),
        ("policy", "explain", "--token", EVIL, "--method", "GenerationService/Generate", "--config", EVIL),
        ("policy", "revoke", "--issuer", EVIL, "--jti", EVIL, "--config", EVIL),
        ("policy", "revoke", "--issuer", "x", "--subject", "x", "--issued-before", EVIL),
        ("token", "--ttl", EVIL),
        ("token", "--tenant", EVIL),
        ("up", "--config-dir", EVIL),
        ("up", "--gateway-port", EVIL),
    ],
    ids=lambda arguments: " ".join(each for each in arguments if each.isprintable()) or "root",
)
@pytest.mark.parametrize("debug", ["", "1"])
def test_names_of_files_and_mistyped_words(
    arguments: tuple[str, ...], debug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NUL is in no argument of a process."""
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    monkeypatch.setenv("MESHGATE_DEBUG", debug)
    monkeypatch.setenv("NO_COLOR", "1")
    result = run(*(each.replace("\x00", "")[:200] for each in arguments))
    assert result.output
    assert harmless(result.output)


def test_a_file_whose_lines_are_evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    (tmp_path / "x.csv").write_text(f"{EVIL},label\n", encoding="utf-8")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "gateway.toml").write_text('"\\u001b[2J" = 1\n[[x', encoding="utf-8")
    config = str(tmp_path / "config" / "gateway.toml")
    for arguments in (
        ("classifier", "train", "x", "--file", str(tmp_path / "x.csv")),
        ("policy", "explain", "--token", "x", "--method", "EmbeddingService/Embed", "--config", config),
    ):
        assert harmless(run(*arguments).output)


def test_what_a_part_of_the_mesh_said_last(capsys: pytest.CaptureFixture[str]) -> None:
    screen = MeshConsole(output.console(), Board(["generation"], lambda: 0.0))
    screen.died("generation", 1, 0.5, json.dumps({"message": EVIL}))
    screen.died("generation", 1, 0.5, EVIL)
    screen.starting(Path(EVIL))
    screen.ready(EVIL)
    assert harmless(capsys.readouterr().out)


@pytest.mark.parametrize(
    "module", ["certs", "gateway", "meshgate.runtime.probe", "services.embedding", "services.model_process"]
)
def test_flags_of_processes(module: str) -> None:
    """argparse repeats what it does not know as it was typed."""
    evil = EVIL.replace("\x00", "").encode("utf-8", "ignore").decode()
    asked = ["--config", "x"] if module in {"gateway", "services.embedding"} else []
    ran = subprocess.run([sys.executable, "-m", module, *asked, f"--{evil}"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode
    assert harmless(ran.stderr)


def test_where_certificates_are(tmp_path: Path) -> None:
    home = tmp_path / "a\x1bc\u202e"
    for place in (home, home / "certs" / "ca.pem"):
        asked = [sys.executable, "-m", "certs", "--home", str(place)]
        ran = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
        assert harmless(ran.stdout + ran.stderr)


def test_the_directory_that_a_mesh_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a\x1bc\u202e").mkdir()
    monkeypatch.chdir(tmp_path / "a\x1bc\u202e")
    MeshConsole(output.console(), Board(["generation"], lambda: 0.0)).ready("127.0.0.1:1", Path.cwd() / "home")
    assert harmless(capsys.readouterr().out)


def test_examples_print_by_one_border_too() -> None:
    """What a model says in an example is what it says in a command."""
    for path in ROOT.glob("examples/*.py"):
        assert path.name == "connection.py" or set(_writes(ast.parse(path.read_text()))) <= {"sys.stdin"}, path


def test_a_bar_shows_numbers_alone() -> None:
    shown = embed_file._Bar(SimpleNamespace(lines=3, done=1))  # type: ignore[arg-type] # all that it reads
    assert [task.description for task in shown._bar.tasks] == [""]


BORDERS: Final = {"meshgate/cli/screen/output.py", "meshgate/terminal.py"}
WRITERS: Final = {
    "meshgate/cli/streams.py": {"sys.stdout", "sys.stderr"},  # opens those that were closed, and prints nothing
    "meshgate/cli/commands/chat.py": {"typer.echo"},  # its own prompt
    "meshgate/runtime/logs/log.py": {"sys.stderr"},  # JSON
    "meshgate/runtime/probe.py": {"sys.stdout", "sys.stderr"},  # lines by meshgate.terminal
    "meshgate/runtime/logs/stderr_capture.py": {"sys.stderr"},  # where JSON goes
    "meshgate/supervisor/console.py": {"sys.stdout"},
}
"""What else writes, and why that is right."""


_ASKED: Final = {"flush", "isatty", "fileno"}
"""What a stream may be asked by anyone."""


def test_only_the_border_prints() -> None:
    """A command that printed by itself would have to remember; nobody does."""
    for path in [*ROOT.glob("meshgate/**/*.py"), *ROOT.glob("gateway/**/*.py"), *ROOT.glob("services/**/*.py")]:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("meshgate/v1/", "services/classification/training")) or name in BORDERS:
            continue
        assert set(_writes(ast.parse(path.read_text()))) <= WRITERS.get(name, set()), name


def _writes(tree: ast.AST) -> Iterator[str]:
    nodes = list(ast.walk(tree))
    asked = [node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr in _ASKED]
    for node in nodes:
        match node:
            case _ if node in asked:
                continue
            case ast.Call(func=ast.Name(id="print")):
                yield "print"
            case ast.Call(func=ast.Name(id="Console") | ast.Attribute(attr="Console")):
                yield "Console"
            case ast.Attribute(value=ast.Name(id="typer"), attr="echo" | "secho"):
                yield "typer.echo"
            case ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr" as stream):
                yield f"sys.{stream}"
