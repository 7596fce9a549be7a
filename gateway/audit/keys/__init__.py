"""The keys of the audit log: those that sign checkpoints, those of content digests, and their rotation."""
