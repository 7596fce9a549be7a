"""`meshgate classifier`, on the default models: train, use, roll back, delete; and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.commands import dev_issuer
from tests.e2e.conftest import Up

pytestmark = pytest.mark.timeout(400)

_TICKETS = Path(__file__).parents[2] / "examples" / "ticket_intents.csv"
_ASKED = "I want my money back"


class _Other(Up):
    """The same mesh, used by another tenant."""

    @property
    def environment(self) -> dict[str, str]:
        token = dev_issuer.mint(self.home, tenant="other", subject="eve", scopes=dev_issuer.SCOPES, ttl=600)
        return {**super().environment, "MESHGATE_TOKEN": token}


def test_a_classifier_of_ones_own(up: Up) -> None:
    trained = up.cli("classifier", "train", "cli-tickets", "--file", str(_TICKETS), "--seed", "1")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith("cli-tickets version 1: ")
    assert "as refund" in trained.stdout

    used = up.cli("classify", _ASKED, "--model", "cli-tickets", "--json")
    assert json.loads(used.stdout)["results"][0]["labels"][0]["label"] == "refund"

    again = up.cli("classifier", "train", "cli-tickets", "--file", str(_TICKETS), "--held-out", "0.4", "--json")
    assert json.loads(again.stdout)["version"] == 2
    rolled = json.loads(up.cli("classifier", "rollback", "cli-tickets", "--json").stdout)
    assert (rolled["classifier"]["version"], len(rolled["classifier"]["versions"])) == (1, 2)
    assert "1 *" in up.cli("classifier", "list").stdout

    other = _Other(**{name: getattr(up, name) for name in ("home", "ports", "process")})
    assert json.loads(other.cli("classifier", "list", "--json").stdout) == {}
    names = ("cli-tickets", "cli-nothing")
    foreign, unknown = (other.cli("classify", _ASKED, "--model", name) for name in names)
    assert foreign.returncode == unknown.returncode == 1
    told = (
        done.stderr.partition("request")[0].replace(name, "NAME")
        for done, name in zip((foreign, unknown), names, strict=True)
    )
    assert len(set(told)) == 1

    assert up.cli("classifier", "delete", "cli-tickets").returncode == 0
    gone = up.cli("classify", _ASKED, "--model", "cli-tickets")
    assert gone.returncode == 1
    assert gone.stderr.count("\n") == 1
    assert up.cli("classifier", "delete", "cli-tickets").returncode == 1


def test_one_that_is_sealed(up: Up) -> None:
    done = up.cli("classifier", "train", "cli-sealed", "--file", str(_TICKETS), "--sealed", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] > 0.7
    assert up.cli("classifier", "delete", "cli-sealed").returncode == 0


def test_what_is_wrong_is_one_line(up: Up, tmp_path: Path) -> None:
    lone = tmp_path / "lone.csv"
    lone.write_text("text,label\nx,a\ny,a\n")
    for arguments in (
        ("train", "../up", "--file", str(_TICKETS)),
        ("train", "mine", "--file", str(lone)),
        ("rollback", "no"),
    ):
        done = up.cli("classifier", *arguments)
        assert done.returncode == 1, done.stdout
        assert done.stderr.count("\n") == 1
