"""The log on disk: a hash chain of records in segments, with signed checkpoints and recovery after a crash."""
