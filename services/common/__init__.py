"""What the services share: callers, checks of fields, devices, ordered streams."""
