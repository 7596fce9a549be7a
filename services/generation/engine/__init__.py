"""The engine: its interface, its thread, its start, and the way its output takes to a call."""
