"""Meshgate's tests."""
