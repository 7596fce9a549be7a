"""Transformer encoders: how a checkpoint is loaded, fed and pooled, and compared with transformers."""
