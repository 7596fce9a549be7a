"""Where the audit log is and how it is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from meshgate.runtime.config import Strict


class AuditConfig(Strict):
    """The audit section."""

    directory: Path
    """Of the segments and checkpoints; made when missing, owner-only. One process writes to it."""
    keys: Path
    """Of audit-key.pem (Ed25519), audit-key.pub.pem and audit-hmac.key; made when missing."""
    segment_bytes: int = Field(64 * 1024 * 1024, ge=4096, le=4 * 1024**3)
    """A segment that has grown to this is sealed and the next one begun."""
    checkpoint_records: int = Field(1000, ge=1, le=1_000_000)
    """The most records that no checkpoint covers while more are written."""
    checkpoint_seconds: float = Field(10.0, ge=0.1, le=3600)
    """The longest that a record stays uncovered."""
    timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long a call waits for its record to be on disk before it is refused."""
    queue_records: int = Field(10_000, ge=1, le=1_000_000)
    """How many records may wait."""
