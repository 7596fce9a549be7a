"""Meshgate: a gRPC mesh for language models with a secure gateway. This package is the SDK that both ends share."""

__version__ = "0.1.0"
