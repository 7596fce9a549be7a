"""The audit log: one record of who called what, when, from where, and with what outcome; never the content.

Theory. Each record is one line of canonical JSON. Its hash covers the record and the hash of the line before, so that
no attacker can change, drop, move or add a line without breaking every later hash (`chain/hash_chain.py`). An attacker
who can write the files could compute new hashes to the end. So the gateway signs the latest hash now and then
(`chain/checkpoint.py`). Without the signing key an attacker can't change what a checkpoint covers, and a log that is
shorter than its last checkpoint was cut. Each checkpoint promises when the next one comes
(`chain/checkpoint_bound.py`), so that deleted checkpoints are found out as well. The chain alone covers the records
after the last checkpoint, at most some seconds of them. An attacker who deletes the newest checkpoints with the records
that they cover shortens the log unseen, unless a checkpoint was kept elsewhere. So the gateway writes each checkpoint
to the process log too, a collector takes it away, and `verify` reads it from there.

A record is durable before its caller has the outcome (`log.py`), in the log on disk and in every other required sink.
Each sink has a queue (`sinks/sink_queue.py`) and a thread, which takes all waiting records, writes them, syncs once and
wakes their callers (group commit: `group_commit.py`). `chain/ledger.py` is the log on disk. `tools/verify.py` is for an
auditor, offline; `chain/external_checkpoints.py` compares the checkpoints. The keys for signatures (`keys/signing.py`)
and for HMACs of content (`keys/content_hmac.py`) rotate (`keys/key_rotation.py`).
docs/formats/audit-log.md is the format.
"""

from __future__ import annotations

from gateway.audit.config import AuditConfig
from gateway.audit.keys.content_hmac import ContentHmac, ContentHmacs
from gateway.audit.log import UNAVAILABLE, AuditLog
from gateway.audit.record import AuditRecord

__all__ = ["UNAVAILABLE", "AuditConfig", "AuditLog", "AuditRecord", "ContentHmac", "ContentHmacs"]
