"""The examples do what they say, on the default models; and say in one line what went wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.commands import dev_issuer
from tests.e2e.conftest import Up
from tests.support.network.ports import free_ports

pytestmark = pytest.mark.timeout(400)

_EXAMPLES = Path(__file__).parents[2] / "examples"
_LONGEST = 80
"""Lines of an example."""
_CALLING = ("customer_service.py", "question_answering.py", "ticket_intents.py")


def run(up: Up, name: str, *arguments: str, token: str | None = None, **environment: str) -> tuple[int, str, str]:
    """Exit status, output and errors of an example, run as its user would."""
    file = up.home / "example.token"
    file.write_text(token or dev_issuer.development_token(up.home))
    done = subprocess.run(
        [sys.executable, str(_EXAMPLES / name), *arguments],
        env={
            **up.environment,
            "MESHGATE_CA": str(up.home / "certs" / "ca.pem"),
            "MESHGATE_TOKEN_FILE": str(file),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_customer_service(up: Up) -> None:
    code, said, errors = run(up, "customer_service.py")
    assert (code, errors) == (0, "")
    intent, faq, answer = said.strip().split("\n", 2)
    assert intent == "intent: billing"
    assert faq == "faq: I was charged twice"
    assert len(answer.removeprefix("answer: ").split()) > 5


def test_customer_service_is_sealed(up: Up) -> None:
    run(up, "customer_service.py", "Where is the parcel that you sent me last week?")
    calls = [
        line for line in up.cli("audit", "tail", "-n", "10", "--json").stdout.splitlines() if "SealedService" in line
    ]
    assert any("GenerateStream" in line for line in calls)
    assert not any("parcel" in line for line in calls)


def test_question_answering(up: Up) -> None:
    code, said, errors = run(up, "question_answering.py")
    assert (code, errors) == (0, "")
    assert "21 hours" in said
    assert said.rstrip().splitlines()[-1].startswith("from: apollo-11")


def test_ticket_intents(up: Up) -> None:
    code, said, errors = run(up, "ticket_intents.py")
    assert (code, errors) == (0, "")
    report, *tickets = said.splitlines()
    assert int(report.partition(": ")[2].partition("%")[0]) >= 75, report
    assert [line.split()[0] for line in tickets] == ["refund", "bug", "feature", "delivery"]


@pytest.mark.parametrize("name", _CALLING)
def test_a_bad_token_is_one_line(up: Up, name: str) -> None:
    code, said, errors = run(up, name, token="nonsense")
    assert code == 1
    assert errors.startswith("meshgate: ")
    assert errors.count("\n") == 1
    assert said == ""


@pytest.mark.parametrize("name", _CALLING)
def test_no_gateway_is_one_line(up: Up, name: str) -> None:
    [port] = free_ports(1)
    code, _, errors = run(up, name, MESHGATE_TARGET=f"127.0.0.1:{port}")
    assert code == 1
    assert errors.startswith("meshgate: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < _LONGEST
