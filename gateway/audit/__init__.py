"""The audit log: who asked what, when, from where, and what came of it; never the content.

Theory. Each record is one line of canonical JSON whose hash covers the record and the hash of the line before, so that
no line can be changed, dropped, moved or added without breaking every later hash (`chain.py`). Anyone who can write the
files could compute new hashes to the end, so now and then the latest hash is signed (`checkpoint.py`): what a
checkpoint covers can't be changed without the signing key, and a log that is shorter than its last checkpoint was cut.
Each checkpoint promises when the next comes (`coverage.py`), so that deleting some is found out as well. What came
after the last one, at most some seconds of it, is covered by the chain alone, and whoever deletes the newest
checkpoints with the records they cover shortens the log unseen, unless a checkpoint was kept elsewhere: each one is
also written to the process log, which a collector takes away, and `verify` takes it from there.

A record is on disk before its caller is told (`log.py`), and wherever else it must be: each sink has a lane
(`lane.py`) whose thread takes all that wait, writes, syncs once and wakes them. `ledger.py` is what that thread does
for the log on disk; `verify.py` is what an auditor does, offline, with `witness.py` for the checkpoints. The keys that
sign (`signing.py`) and digest (`digest.py`) follow each other (`succession.py`). docs/audit.md is the format.
"""

from __future__ import annotations

from gateway.audit.config import AuditConfig
from gateway.audit.keys.content_hmac import ContentHmac, ContentHmacs
from gateway.audit.log import UNAVAILABLE, AuditLog
from gateway.audit.record import AuditRecord

__all__ = ["UNAVAILABLE", "AuditConfig", "AuditLog", "AuditRecord", "ContentHmac", "ContentHmacs"]
