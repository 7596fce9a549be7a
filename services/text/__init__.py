"""Text to token ids: tokenisers, long texts in pieces, and the queue of texts to be read."""
