"""A service is called by whom its list names, and by nobody else."""

from __future__ import annotations

import pytest

from meshgate import errors
from meshgate.runtime.guard import PeerPolicy
from meshgate.runtime.tls import spiffe_ids

GATEWAY = "spiffe://meshgate.local/gateway"
EMBED = "/meshgate.v1.EmbeddingService/Embed"


def test_a_named_peer_may_call() -> None:
    PeerPolicy({"/meshgate.v1.EmbeddingService/*": [GATEWAY]}).check(EMBED, [GATEWAY])


@pytest.mark.parametrize(
    ("method", "peers"),
    [
        (EMBED, []),
        (EMBED, ["spiffe://meshgate.local/generation"]),
        (EMBED, ["spiffe://meshgate.local/gateway/x"]),
        ("/meshgate.v1.GenerationService/Generate", [GATEWAY]),
    ],
)
def test_everyone_else_is_refused(method: str, peers: list[str]) -> None:
    policy = PeerPolicy({"/meshgate.v1.EmbeddingService/*": [GATEWAY]})
    with pytest.raises(errors.PermissionDenied) as caught:
        policy.check(method, peers)
    assert caught.value.reason == "PEER_NOT_ALLOWED"


def test_an_empty_list_is_nobody() -> None:
    with pytest.raises(errors.PermissionDenied):
        PeerPolicy({}).check(EMBED, [GATEWAY])


def test_only_spiffe_names_count() -> None:
    names = [b"localhost", b"127.0.0.1", GATEWAY.encode()]
    assert spiffe_ids({"x509_subject_alternative_name": names}) == (GATEWAY,)
    assert spiffe_ids({}) == ()
