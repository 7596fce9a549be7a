"""The parts that services share: callers, checks of fields, devices, ordered streams."""
