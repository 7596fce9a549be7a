"""Logs the model names in the configuration that apply to nothing, each time that they change."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from gateway.authorisation import references
from gateway.authorisation.policy import PolicyConfig
from gateway.authorisation.references import ListedModels, Unmatched
from gateway.limits import LimitsConfig

_log = logging.getLogger(__name__)

_SAID: Final = 16
"""Lines for one change, and one line for the number of further ones."""


class ReferenceWatch:
    """The configuration's model names that match no model now."""

    def __init__(self, policy: PolicyConfig, limits: LimitsConfig) -> None:
        self._policy = policy
        self._limits = limits
        self._unmatched: tuple[Unmatched, ...] = ()

    def look(self, listed: ListedModels) -> None:
        """Compares the names with the listed models, once every service was asked."""
        found = references.unmatched(self._policy, self._limits, listed)
        fresh = [each for each in found if each not in self._unmatched]
        matched = [each for each in self._unmatched if each not in found]
        self._unmatched = found
        for each in fresh[:_SAID]:
            _log.warning("a name in the configuration applies to nothing", extra=_told(each))
        if len(fresh) > _SAID:
            _log.warning("more names in the configuration apply to nothing", extra={"count": len(fresh) - _SAID})
        for each in matched[:_SAID]:
            _log.info("a name in the configuration applies now", extra={"key": each.key, "named": each.name})

    def counts(self) -> dict[str, float]:
        """The number of names of each kind, for metrics."""
        found = Counter(each.kind for each in self._unmatched)
        return {kind: float(found[kind]) for kind in references.KINDS}


def _told(each: Unmatched) -> dict[str, str]:
    return {"key": each.key, "named": each.name, "why": each.why}
