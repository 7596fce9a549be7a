"""The how-tos of identity: the gateway reads the configuration that they show, and they explain every reason."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from gateway.authentication import IssuerConfig, RevocationConfig, token_errors
from gateway.authentication.revocation.revocation_list import Revoked
from gateway.authentication.revocation.revocation_source import RevocationDocument
from gateway.authorisation.policy import DEFAULT_SCOPES
from meshgate.errors import MeshError

HOWTO = Path(__file__).parents[3] / "docs" / "howto"
ISSUER = (HOWTO / "bring-your-own-issuer.md").read_text()
REVOKE = (HOWTO / "revoke-access.md").read_text()
REFUSAL = (HOWTO / "debug-a-refusal.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, those within a list too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [dedent(block) for _, block in found]


def test_the_issuer_that_it_shows_is_one() -> None:
    (issuers,) = (tomllib.loads(block) for block in blocks(ISSUER, "toml"))
    assert IssuerConfig.model_validate(issuers["issuers"][0]).tenants == frozenset(("acme", "globex"))


def test_the_revocation_that_it_shows_is_one() -> None:
    (revocation,) = (tomllib.loads(block) for block in blocks(REVOKE, "toml"))
    RevocationConfig.model_validate(revocation["revocation"])


def test_the_examples_of_providers_are_issuers() -> None:
    shown = re.findall(r"^```\n(\[\[issuers\]\].*?)```", ISSUER, re.DOTALL | re.MULTILINE)
    found = [IssuerConfig.model_validate(tomllib.loads(block)["issuers"][0]) for block in shown]
    assert [config.scope_claim for config in found] == [
        ("realm_access", "roles"),
        ("https://acme.example/roles",),
        ("kubernetes.io", "serviceaccount", "name"),
    ]
    granted = {scope for config in found for scopes in (config.scope_map or {}).values() for scope in scopes}
    assert granted == set(DEFAULT_SCOPES)


def test_the_lists_it_shows_are_lists() -> None:
    (shown,) = blocks(REVOKE, "json")
    assert len(RevocationDocument.model_validate_json(shown).revoked) == 3
    commands = [line.split() for line in REVOKE.splitlines() if line.startswith("XADD ")]
    assert len(commands) == 3
    for _, _key, _star, *words in commands:
        Revoked.model_validate(dict(zip(words[::2], words[1::2], strict=True)))


def _made(name: str, function: Any) -> MeshError:
    made = function(*(["x"] * len(inspect.signature(function).parameters)))
    assert isinstance(made, MeshError), name
    return made


REFUSALS = {
    name: _made(name, function)
    for name, function in inspect.getmembers(token_errors, inspect.isfunction)
    if not name.startswith("_")
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_reason_is_explained(name: str) -> None:
    assert f"`{REFUSALS[name].reason}`" in REFUSAL
