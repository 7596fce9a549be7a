"""The model services. Each is a process of its own and imports neither another service nor the gateway."""
