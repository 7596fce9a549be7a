"""Random tiny models, made on the fly."""
