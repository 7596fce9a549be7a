"""The log on disk: a chain of hashed records in segments, with signed checkpoints and recovery after a crash."""
