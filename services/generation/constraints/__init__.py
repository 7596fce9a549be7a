"""Structured output: what a caller's constraint allows, token by token.

A constraint (a JSON schema, a regular expression, a list of choices) is checked here, compiled to a grammar off the
model's thread, and kept. Each candidate then follows a copy of its own: before each choice it says which tokens keep
the output within the grammar, after it it takes the chosen one. A row without a constraint pays nothing.

The library behind it is llguidance (Microsoft, MIT): ADR 0003 has the comparison. It is imported by
`grammar.py` alone.
"""

from __future__ import annotations

from services.generation.constraints.choices import Choices
from services.generation.constraints.constraint import Constraint, read
from services.generation.constraints.grammar import Grammar, Grammars

__all__ = ["Choices", "Constraint", "Grammar", "Grammars", "read"]
