"""A call's own name."""

from __future__ import annotations

import re

from gateway.call import Call


def test_every_call_has_an_id_of_its_own() -> None:
    """Also where the pool they are drawn from is made anew."""
    ids = [Call(method="", peer="", authorization=None, deadline=None).request_id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
