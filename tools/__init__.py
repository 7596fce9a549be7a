"""Programs for those who work on the source: what is generated, and what is checked."""
