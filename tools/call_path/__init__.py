"""Which files of the project run in one call: `python -m tools.call_path`."""
