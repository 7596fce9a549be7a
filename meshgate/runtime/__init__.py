"""The parts of every Meshgate process besides gRPC: configuration, logs, metrics, files, its start and its end."""
