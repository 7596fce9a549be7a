"""Authorisation: which methods a scope allows and which models a tenant may use, and why a call is let through."""
