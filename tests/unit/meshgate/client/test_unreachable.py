"""Errors for a wrong target: each is its own, and right."""

from __future__ import annotations

import pytest

from meshgate.client import environment, unreachable
from meshgate.runtime.config import ConfigError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "target",
    [
        *("localhost:8443", "127.0.0.1:1", "[::1]:65535", "gateway.meshgate.svc:8443"),
        *("dns:///a.b:1", "dns:a.b", "dns://1.1.1.1:53/a.b:1", "unix:/tmp/x", "unix:///tmp/x", "unix-abstract:x"),
        *("ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1"),
    ],
)
def test_a_target_that_grpc_takes(target: str) -> None:
    assert unreachable.fault(target) == ""


@pytest.mark.parametrize(
    "target",
    [
        *("", "localhost", "localhost:", ":8443", "localhost:0", "localhost:65536", "localhost:x", "a b:1", "::1:8443"),
        *("127.0.0.1:1/path", "user@host:1", "[::1:1", "a\x1b[31m:1", "host:\u0663", "https:127.0.0.1:8443"),
        *("ipv4:", "ipv4:1.2.3.4", "ipv4:junk", "ipv4:127.0.0.1:0", "ipv4:127.0.0.1:1,", "ipv4:[::1]:1", "ipv6:::1"),
        *("unix:", "unix-abstract:", "unix:///", "dns:", "dns:///", "dns://1.1.1.1/a.b:1"),
    ],
)
def test_one_that_is_none(target: str) -> None:
    assert unreachable.fault(target) == "host:port is required, such as 127.0.0.1:8443"
    if target:
        with pytest.raises(ConfigError, match=r"^MESHGATE_TARGET: host:port is required"):
            environment.settings({"MESHGATE_TARGET": target, "MESHGATE_TOKEN": "a.b.c"})


@pytest.mark.parametrize("target", ["https://localhost:8443", "http://x", "grpc://x:1", "xds:///x"])
def test_a_url_is_told_apart(target: str) -> None:
    assert unreachable.fault(target).startswith(f"leave out {target.partition('//')[0]}//, host:port is required")


HANDSHAKE = "last error: UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("errors resolving x: address lookup failed for x: Domain name not found", "there is no such host as x:1"),
        ("last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", "x:1 closed the connection: is it the gateway's"),
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: unable to get", "x:1 has no certificate of the CA that --ca or"),
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "the certificate of x:1 has expired"),
        (f"{HANDSHAKE}CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "the certificate of x:1 is not valid"),
        ("Cannot check peer: missing selected ALPN property.", "x:1 speaks TLS, and no HTTP/2 in it"),
        ("Failed parsing HTTP/2 (Trying to connect an http1.x server", "x:1 speaks TLS, and no HTTP/2 in it"),
        ("HTTP proxy returned response code 400", "the proxy does not connect to x:1"),
        (f"{HANDSHAKE}WRONG_VERSION_NUMBER", "x:1 does not speak TLS as a gateway does"),
        ("Hostname Verification Check failed.", "the certificate of x:1 is for another host"),
        ("Failed to connect to remote host: Connection refused", "x:1 can't be reached; is `make up` running?"),
        ("unix:/x: connect failed: No such file or directory", "there is no socket at x:1"),
        ("", "x:1 can't be reached; is `make up` running?"),
    ],
)
def test_what_happened_is_said(said: str, told: str) -> None:
    assert unreachable.sentence(said, "x:1").startswith(told)


def test_a_proxy_that_stands_between_is_named_and_its_password_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    said = unreachable.sentence("Failed to connect to remote host: Connection refused", "far.example:1")
    assert said.endswith("(https_proxy names a proxy, asked for what no_proxy does not name)")
    assert "secret" not in said
    assert "proxy" not in unreachable.sentence("Connection refused", "127.0.0.1:1")
