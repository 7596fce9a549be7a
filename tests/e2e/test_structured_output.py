"""Structured output by the real model, through the gateway, sealed and not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Up

pytestmark = pytest.mark.timeout(400)

_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("flags", [(), ("--sealed",), ("--stream",)])
def test_a_schema(up: Up, tmp_path: Path, flags: tuple[str, ...]) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(_SCHEMA))
    asked = "The largest city of France as JSON: "
    done = up.cli("generate", asked, "--json-schema", str(path), "--temperature", "0", "--max-tokens", "60", *flags)
    assert done.returncode == 0, done.stderr
    city = json.loads(done.stdout.replace(asked, ""))
    assert set(city) == {"city", "people"}
    assert isinstance(city["people"], int)


def test_an_expression_and_a_choice(up: Up) -> None:
    said = up.cli("generate", "Call me at ", "--regex", "[0-9]{3}-[0-9]{4}", "--max-tokens", "20").stdout
    assert re.fullmatch("Call me at [0-9]{3}-[0-9]{4}\n", said)
    said = up.cli(
        "generate", "The sky is ", "--choice", "blue", "--choice", "made of cheese", "--temperature", "0"
    ).stdout
    assert said in ("The sky is blue\n", "The sky is made of cheese\n")


def test_what_cannot_be_followed_is_one_line(up: Up) -> None:
    done = up.cli("generate", "x", "--regex", "(?=x)y")
    assert done.returncode == 1
    assert "constraint.regex" in done.stderr
    assert "look-around" in done.stderr
    assert done.stderr.count("\n") == 1
    assert up.cli("generate", "x", "--regex", "y", "--choice", "z").returncode == 2
