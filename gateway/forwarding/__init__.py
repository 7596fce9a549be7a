"""How admitted calls reach a service, and which models the services have."""
