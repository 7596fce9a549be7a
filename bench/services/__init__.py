"""The model services through the whole secure path beside their peers, in one run."""
