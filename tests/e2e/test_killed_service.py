"""A service that dies in the middle of a stream: the caller is told, the service comes back, the next call works."""

from __future__ import annotations

import os
import signal
from typing import Any

import grpc
import pytest

from gateway.commands import dev_issuer
from meshgate import client, errors
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.e2e.conftest import Up

pytestmark = pytest.mark.timeout(400)


def test_sigkill_during_a_stream(up: Up) -> None:
    token = dev_issuer.development_token(up.home)
    with client.connect(up.target, ca=up.home / "certs" / "ca.pem", token=token) as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt="Once upon a time", max_output_tokens=800)
        stream = stub.GenerateStream(generation_pb2.GenerateStreamRequest(request=request), timeout=120)
        assert next(stream).deltas
        said = len(up.lines)
        os.kill(up.pid("generation"), signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        failed: Any = caught.value
        error = client.explain(failed)
        assert (type(error), error.reason) == (errors.Unavailable, "BACKEND_UNAVAILABLE")
        up.wait_for("generation died (signal SIGKILL)", since=said)
        up.wait_for("generation serving", since=said)
        short = generation_pb2.GenerateRequest(prompt="Once upon a time", max_output_tokens=3)
        assert stub.Generate(short, timeout=60, wait_for_ready=True).candidates[0].text
