"""The generation service: text from a causal language model, many callers at a time."""
