"""Revoked tokens and subjects: the list, the sources from which it is read, and its writer."""
