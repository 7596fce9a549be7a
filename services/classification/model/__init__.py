"""Classifiers: how each kind is loaded and run, and what its raw scores mean."""
