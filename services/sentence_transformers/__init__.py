"""Models as sentence-transformers saves them: an encoder, a pooling, layers after it, prompts and a tokeniser."""
