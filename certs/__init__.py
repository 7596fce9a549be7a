"""The development CA: short-lived SPIFFE leaf certificates for every part of a mesh on one machine.

Not for production: the CA's key lies next to what it signs. certs/README.md says what to use there.
"""

from __future__ import annotations

from certs.authority import LOCAL, NAMES, TRUST_DOMAIN, ensure
from certs.files import state_directory

__all__ = ["LOCAL", "NAMES", "TRUST_DOMAIN", "ensure", "state_directory"]
