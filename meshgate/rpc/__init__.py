"""Everything that knows gRPC: channels, servers, TLS, status, metadata, health, balancing."""
