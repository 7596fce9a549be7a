"""What every Meshgate process needs to speak gRPC: one concern a file."""
