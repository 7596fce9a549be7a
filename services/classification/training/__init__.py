"""Reproduces the shipped `sentiment` weights: `python -m services.classification.training`."""
