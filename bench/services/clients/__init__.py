"""Clients of every server that is measured."""
