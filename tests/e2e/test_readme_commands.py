"""Each command of the README gives a real answer from the real models, with no flags."""

from __future__ import annotations

import json
import math
import os
import subprocess
from typing import Any

import pytest

from tests.e2e.conftest import Up

pytestmark = pytest.mark.timeout(400)


def answer(up: Up, *arguments: str) -> Any:
    done = up.cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_five_continuations(up: Up) -> None:
    reply = answer(up, "generate", "我喜欢编程。", "-n", "5", "--max-tokens", "20")
    assert [candidate.get("index", 0) for candidate in reply["candidates"]] == [0, 1, 2, 3, 4]
    assert len({candidate["text"] for candidate in reply["candidates"]}) == 5
    assert reply["usage"]["outputTokens"] <= 100


def test_a_chinese_embedding(up: Up) -> None:
    values = answer(up, "embed", "你好，世界！")["embeddings"][0]["floats"]["values"]
    assert len(values) == 384
    assert math.sqrt(sum(value * value for value in values)) == pytest.approx(1.0, abs=1e-5)


def test_a_film_that_was_loved(up: Up) -> None:
    labels = answer(up, "classify", "I loved this film")["results"][0]["labels"]
    assert labels[0]["label"] == "positive"
    assert sum(each["score"] for each in labels) == pytest.approx(1.0, abs=1e-5)


def test_labels_of_ones_own(up: Up) -> None:
    reply = answer(up, "classify", "My card was charged twice", "--labels", "billing,delivery,account")
    assert reply["results"][0]["labels"][0]["label"] == "billing"


@pytest.mark.parametrize("sealed", [(), ("--sealed",)], ids=["plain", "sealed"])
def test_a_stream_says_what_the_whole_says(up: Up, sealed: tuple[str, ...]) -> None:
    flags = ("--max-tokens", "12", "--temperature", "0", *sealed)
    whole = answer(up, "generate", "Gravity is", *flags)["candidates"][0]["text"]
    for echo, before in (("--echo", "Gravity is"), ("--no-echo", "")):
        streamed = up.cli("generate", "Gravity is", "--stream", echo, *flags)
        assert streamed.returncode == 0, streamed.stderr
        assert streamed.stdout == f"{before}{whole}\n"


def test_chat_keeps_the_conversation(up: Up) -> None:
    done = up.cli("chat", "--max-tokens", "8", "--temperature", "0", said="Say hello.\nAgain.\n/exit\n")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) >= 2


def test_the_models(up: Up) -> None:
    names = [model["name"] for model in answer(up, "models")["models"]]
    assert names == sorted(names)
    assert {"SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "sentiment", "zero-shot"} == set(names)


def test_the_audit_log_is_whole(up: Up) -> None:
    answer(up, "models")
    verified = up.cli("audit", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["intact"]
    last = [json.loads(line) for line in up.cli("audit", "tail", "-n", "2", "--json").stdout.splitlines()]
    assert "ListModels" in json.dumps(last)


def test_what_up_proposes_works_as_printed(up: Up) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESHGATE_")}
    proposed = [line.strip() for line in up.lines if line.startswith("  ") and "meshgate " in line]
    assert len(proposed) >= 5
    for command in proposed:
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            input="/exit\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_a_token_of_ones_own(up: Up) -> None:
    token = up.cli("token", "--tenant", "acme", "--subject", "bob", "--scope", "models", "--ttl", "5m").stdout.strip()
    assert up.cli("--token", token, "models").returncode == 0
    refused = up.cli("--token", token, "embed", "x")
    assert refused.returncode == 1
    assert "SCOPE_MISSING" in refused.stderr
    assert "request " in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("generate", ""), "prompt"),
        (("generate", "x", "--max-tokens", "0"), "max_output_tokens"),
        (("generate", "x", "--temperature", "3"), "sampling.temperature"),
        (("generate", "x", "--model", "nope"), "MODEL_NOT_FOUND"),
        (("--token", "nonsense", "models"), "TOKEN_MALFORMED"),
        (("generate", "x", "--max-tokens", "-1"), "--max-tokens"),
        (("classify", "x", "--labels", "one"), "candidate_labels"),
        (("embed",), "a text"),
    ],
)
def test_what_is_wrong_is_one_line(up: Up, arguments: tuple[str, ...], reason: str) -> None:
    done = up.cli(*arguments)
    assert done.returncode != 0
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
