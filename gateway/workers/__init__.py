"""Several gateway processes on one port, and the supervisor that holds it."""
