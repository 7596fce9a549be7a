"""Authorisation: the methods that a scope allows, the models that a tenant may use, and the explanation of a
decision.
"""
