"""Continuous batching: which requests run in which cache rows, step by step. No threads here; see engine_thread.py.

A step reads top-down: `scheduler.py` runs it over the state in `state.py`. `prefill.py` admits requests and prefills
their prompts, `candidates.py` puts candidates into rows and gives them tokens, and `oom_recovery.py` makes room where
the device has no memory left.
"""
