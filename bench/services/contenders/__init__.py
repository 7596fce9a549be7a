"""The contenders: servers and workers that are started and measured."""
