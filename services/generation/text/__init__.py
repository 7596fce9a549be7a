"""Text to token ids and back: templates, tokenising, detokenising, stop sequences."""
