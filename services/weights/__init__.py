"""In which form a model's weights are multiplied: laid out for the CPU, in eight bits, compiled; and what that costs.

`opening.py` is the way in.
"""
