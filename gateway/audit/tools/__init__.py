"""The tools for operators and auditors: verify, search and follow a log, and match content with its HMACs."""
