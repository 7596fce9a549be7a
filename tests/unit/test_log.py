"""What a log line says, and what it must not."""

from __future__ import annotations

import json
import logging
import sys

from meshgate.runtime.log import JsonFormatter


def failed(prompt: str) -> logging.LogRecord:
    try:
        try:
            raise KeyError(prompt)
        except KeyError as error:
            raise ValueError(f"can't do {prompt}") from error
    except ValueError:
        return logging.makeLogRecord({"name": "test", "msg": "call failed", "exc_info": sys.exc_info()})


def test_an_exception_is_its_kind_and_place_and_not_its_text_or_a_path() -> None:
    line = JsonFormatter("gateway").format(failed("a secret prompt"))
    said = json.loads(line)
    assert [item["type"] for item in said["exception"]] == ["builtins.ValueError", "builtins.KeyError"]
    assert said["exception"][0]["at"][0].startswith(f"{__name__}.failed:")
    assert "secret" not in line
    assert __file__ not in line
    assert "\n" not in line


def test_extras_are_members() -> None:
    record = logging.makeLogRecord({"name": "test", "msg": "serving", "port": 8443})
    assert json.loads(JsonFormatter("gateway").format(record))["port"] == 8443
