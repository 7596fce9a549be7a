"""The prose linter: the project's rules for pages, docstrings, comments and protos."""
