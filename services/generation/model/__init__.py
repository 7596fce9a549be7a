"""Causal language models: their checkpoints, KV cache, forward pass and sampling."""
