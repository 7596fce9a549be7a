"""Benchmarks: each prints one table from one run, with a baseline beside what is measured."""
