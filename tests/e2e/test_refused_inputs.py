"""What a real service refuses comes back through the gateway with its field, its request id and an audit record."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from gateway.commands import dev_issuer
from meshgate import client, errors
from meshgate.v1 import generation_pb2
from tests.e2e.conftest import Up

pytestmark = pytest.mark.timeout(400)

NEGATIVE_ONE = b"\x30" + b"\xff" * 9 + b"\x01"  # field 6, max_output_tokens, as the varint of -1
TOO_LONG = generation_pb2.GenerateRequest(prompt="word " * 5000)


@pytest.mark.parametrize(
    ("message", "field", "reason"),
    [
        (generation_pb2.GenerateRequest().SerializeToString(), "input", "INVALID_ARGUMENT"),
        (generation_pb2.GenerateRequest(prompt="").SerializeToString(), "prompt", "INVALID_ARGUMENT"),
        (
            generation_pb2.GenerateRequest(prompt="x").SerializeToString() + NEGATIVE_ONE,
            "max_output_tokens",
            "INVALID_ARGUMENT",
        ),
        (TOO_LONG.SerializeToString(), "input", "INPUT_TOO_LONG"),
    ],
    ids=["no input", "empty input", "negative max tokens", "too long"],
)
def test_it_is_named_and_recorded(up: Up, message: bytes, field: str, reason: str) -> None:
    token = dev_issuer.development_token(up.home)
    with client.connect(up.target, ca=up.home / "certs" / "ca.pem", token=token) as channel:
        call: Any = channel.unary_unary("/meshgate.v1.GenerationService/Generate", bytes, bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=30)
    error = client.explain(caught.value)
    assert isinstance(error, errors.InvalidArgument)
    assert (error.violations[0].field, error.reason) == (field, reason)
    tail = up.cli("audit", "tail", "-n", "20", "--json").stdout.splitlines()
    found = [record for record in map(json.loads, tail) if str(error.request_id) in json.dumps(record)]
    assert reason in json.dumps(found[-1])
