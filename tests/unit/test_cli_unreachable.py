"""Errors for a wrong target: each is its own, and right."""

from __future__ import annotations

import pytest

from meshgate.cli import unreachable
from meshgate.cli.failures import UsageError


@pytest.mark.parametrize(
    "target",
    ["localhost:8443", "127.0.0.1:1", "[::1]:65535", "dns:///a.b:1", "unix:/tmp/x", "gateway.meshgate.svc:8443"],
)
def test_a_target_that_grpc_takes(target: str) -> None:
    assert unreachable.check(target) == target


@pytest.mark.parametrize(
    "target",
    ["", "localhost", "localhost:", ":8443", "localhost:0", "localhost:65536", "localhost:x", "a b:1", "::1:8443"],
)
def test_one_that_is_none(target: str) -> None:
    with pytest.raises(UsageError, match=r"^--target: host:port is required, such as 127\.0\.0\.1:8443$"):
        unreachable.check(target)


@pytest.mark.parametrize("target", ["https://localhost:8443", "http://x", "grpc://x:1"])
def test_a_url_is_told_apart(target: str) -> None:
    with pytest.raises(UsageError, match=f"^--target: leave out {target.partition('//')[0]}//, host:port is required"):
        unreachable.check(target)


HANDSHAKE = "last error: UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("errors resolving x: address lookup failed for x: Domain name not found", "there is no such host as x:1"),
        ("last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", "x:1 closed the connection: is it the gateway's"),
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: unable to get", "x:1 has no certificate of the CA that --ca names"),
        (f"{HANDSHAKE}WRONG_VERSION_NUMBER", "x:1 does not speak TLS as a gateway does"),
        ("Hostname Verification Check failed.", "the certificate of x:1 is for another host"),
        ("Failed to connect to remote host: Connection refused", "x:1 can't be reached; is `make up` running?"),
        ("unix:/x: connect failed: No such file or directory", "there is no socket at x:1"),
        ("", "x:1 can't be reached; is `make up` running?"),
    ],
)
def test_what_happened_is_said(said: str, told: str) -> None:
    assert unreachable.sentence(said, "x:1").startswith(told)
