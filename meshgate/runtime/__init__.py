"""What every Meshgate process needs besides gRPC: configuration, logs, metrics, files, its start and its end."""
