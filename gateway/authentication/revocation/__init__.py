"""Revoked tokens and subjects: the list, the sources it is read from, and its writer."""
